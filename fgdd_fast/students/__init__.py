"""Students: networks trained on a distilled set, and judged on images that they have not seen.

    recipe            how a student is trained: RDED's recipe
    architectures     the networks, by name
    training_set      what students learn from: images, views, and soft or hard labels
    online_labels     soft labels that a teacher gives meanwhile
    labelled_images   folders of photographs in memory; validation cuts them as students are judged on them
    training          train_students(...): students of one training set side by side, resumable
    result, summary   what became of a student, and of those of one architecture together
    opening           a training set as the command line names it

Of the pipeline only this package imports torch: in `architectures`, `training` and what they are made of,
which the command line loads when `fgdd-fast evaluate` runs.

    training = TrainingSet(images, labels, classes, views=ViewRecipe(size=32, factor=1, batch=50, seed=0),
                           soft=soft)
    results = train_students(training, validation, [Student("convnet3", seed) for seed in range(3)],
                             StudentRecipe(), checkpoints=folder)
    results[0].accuracy, results[0].balanced_accuracy, results[0].predictions

The views and their soft labels are drawn and rendered once for all students of a training set.
"""

__all__ = ["architectures", "evaluation", "inputs", "results", "training"]
