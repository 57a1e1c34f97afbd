"""The paper's comparisons on a small model: a plan of runs, their results, and a report that judges the claims."""
