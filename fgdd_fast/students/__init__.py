"""Students: networks trained on a distilled set, and judged on images that they have not seen.

`evaluation` does all of it; `architectures` has the networks by name. In the rooms: `inputs` is what students
learn from and are judged by, `training` trains them side by side, `results` is what became of them. Of the
pipeline only this package imports PyTorch, when students are trained.
"""

__all__ = ["architectures", "evaluation", "inputs", "results", "training"]
