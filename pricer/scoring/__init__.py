"""Files of any length scored, with resume and on several machines: `python -m pricer.score`."""
