"""What everything else is built on: errors, components and their registries, records, files."""
