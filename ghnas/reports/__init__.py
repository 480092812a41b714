"""What a person reads: tables, drawings, plots."""
