"""The audit of published record folders: reads, checks and judges what others have submitted, and runs none
of it."""
