"""What people see of results: tables and figures."""
