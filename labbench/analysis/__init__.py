"""From frames to judgements: comparison, matrix, roofline placement, and the sentences of the reports."""
