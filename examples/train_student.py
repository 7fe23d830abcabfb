"""Train a student on a distilled data set with the teacher's labels, in a loop of your own.

    python examples/train_student.py OUT VALIDATION --teacher teacher.onnx

OUT is what `fgdd-fast distill` wrote; VALIDATION has photographs that were not distilled, one folder a class.
`fgdd-fast evaluate` does more of this for you. Needs: pip install 'fgdd-fast[demo,evaluate]'
"""

import argparse
import math

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import fgdd_fast
from fgdd_fast.data import DistilledViews, ValidationImages
from fgdd_fast.students.architectures import find_architecture

TEMPERATURE = 20  # RDED's


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a student on a distilled data set.")
    parser.add_argument("out")
    parser.add_argument("validation")
    parser.add_argument("--teacher", required=True, help="the one that OUT was distilled with")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--architecture", default="convnet5")
    options = parser.parse_args()
    torch.manual_seed(0)

    fgdd_fast.make_labels(options.out, options.teacher, epochs=options.epochs)
    views = DistilledViews(options.out)
    student = find_architecture(options.architecture).new(len(views.classes), views.size)
    train(student, views, options.epochs)

    held_out = ValidationImages(options.validation, views.classes, views.size)
    print(f"{count_right(student, held_out)} of {len(held_out)} held-out photographs are recognised")


def train(student: torch.nn.Module, views: DistilledViews, epochs: int) -> None:
    """Train a student on the views that the teacher labelled."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2
    )
    for epoch in range(epochs):
        views.set_epoch(epoch)
        for images, teacher in DataLoader(views, batch_size=views.recipe.batch):
            loss = functional.kl_div(
                functional.log_softmax(student(images) / TEMPERATURE, dim=1),
                functional.softmax(teacher / TEMPERATURE, dim=1),
                reduction="batchmean",
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def count_right(student: torch.nn.Module, held_out: ValidationImages) -> int:
    """Return how many photographs a student names right."""
    student.eval()
    with torch.no_grad():
        return sum(
            int((student(images).argmax(dim=1) == labels).sum())
            for images, labels in DataLoader(held_out, batch_size=100)
        )


if __name__ == "__main__":
    main()
