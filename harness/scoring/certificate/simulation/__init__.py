"""Coverage, power and false alarms of the certificate, simulated. Only documents and people use it."""
