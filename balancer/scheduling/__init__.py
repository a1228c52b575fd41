"""Scheduling decisions: pure functions of state, event and time. No asyncio, no clock."""
