"""Simulate coverage, power and false alarms of the certificate, for docs/certificate.md."""
