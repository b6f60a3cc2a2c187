"""Coverage, power and false alarms of the certificate, simulated. Used by docs/certificate.md
and its readers only."""
