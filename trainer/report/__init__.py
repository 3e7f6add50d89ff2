"""The report: `report.json` for programs, `report.html` for people. No torch."""
