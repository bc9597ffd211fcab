"""Training scripts: prepare, finetune, calibrate, evaluate, compare with baselines, publish."""
