"""The audit measured on all public record folders. Only documents and people use it."""
