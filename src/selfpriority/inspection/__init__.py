"""What a user looks at beside the report: funnel, one prompt's way, a check-up, exports, as data and text."""
