"""What tests run in a process of its own (see processes.py): commands, and the same ones dying where it does most harm."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from transformers import Trainer

from pricer.llama.predictor import Predictor
from pricer.scoring import __main__ as scoring
from pricer.tables import stream
from train import evaluate, finetune, pretrain


def launch(*command):
    os.chdir(Path(__file__).parents[1])  # where `-m` finds the modules
    launch_command(launch_command_parser().parse_args(command))


def read(*command):
    return pretrain.main(command)


# kill -9 in the third step, and where it does most harm: weights and optimizer of checkpoint-6 are written, the
# trainer's state is not.
def train_and_die(where, *command):
    training_step, save_rng_state = Trainer.training_step, Trainer._save_rng_state

    def step_and_die(self, *args, **kwargs):
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    def save_and_die(self, folder):
        save_rng_state(self, folder)
        if self.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "in a step":
        Trainer.training_step = step_and_die
    else:
        Trainer._save_rng_state = save_and_die
    return finetune.main(command)


def evaluate_and_die(*command):
    add, left = evaluate.Progress.add, [5]

    def add_and_die(self, record):
        add(self, record)
        left[0] -= 1
        if not left[0]:
            self._file.write('{"index": 7, "gue')  # and a line is torn
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    evaluate.Progress.add = add_and_die
    return evaluate.main(command)


def score_and_die(log, kill_after, *words):
    batches, taken = Predictor.predict_batches, 0

    def spied(self, prompts, which):
        nonlocal taken
        self.limits = replace(self.limits, batch_tokens=200)
        for indices, answers in batches(self, prompts, which):
            yield indices, answers
            with open(log, "a") as file:  # the next batch was asked for, so this one was taken
                file.writelines(json.dumps([which, prompts[i].text]) + "\n" for i in indices)
            taken += 1
            if taken == int(kill_after):
                os.kill(os.getpid(), signal.SIGKILL)

    Predictor.predict_batches, stream.PART_ROWS = spied, 8
    return scoring.main(words)
