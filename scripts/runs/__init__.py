"""Runs of the project's own programs in the NAT lab: scenarios, soaks, the demo, and what is recorded of them.

Above `lab`, which knows no program. `runs.scenario` conducts one run, `runs.evidence` turns recorded ones into text.
"""
