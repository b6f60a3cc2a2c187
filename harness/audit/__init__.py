"""The audit of published record folders: it reads and checks what others submitted, and runs none of it."""
