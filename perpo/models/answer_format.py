"""Find out how a model writes boxes, by its configuration alone. No torch."""

from __future__ import annotations

from perpo.boxes import BoxFormat, Frame, Order, Resize, Scale, declared
from perpo.errors import PerpoError
from perpo.models.checkpoints import family_at, known_family, model_config, resolve_model


def answer_format(
    model: str,
    scale: Scale | None = None,
    order: Order | None = None,
    frame: Frame | None = None,
    *,
    are_boxes: bool,
) -> BoxFormat | None:
    """Return how a model writes boxes; nothing but its configuration is read.

    Args:
        model: As the user named it.
        scale: As the user declares it; None for its family's.
        order: As the user declares it.
        frame: As the user declares it.
        are_boxes: Whether answers or truths are boxes; if not, None stands for a type that is not in the table.

    Raises:
        PerpoError: It cannot be found, or how it writes boxes is not known.
    """
    if known_family(model) is not None:
        return declared(family_at(resolve_model(model)).box_format, scale=scale, order=order, frame=frame)
    if are_boxes and scale is None:
        raise PerpoError(
            f"the model type '{model_config(resolve_model(model)).get('model_type', '')}' is not in the table of "
            "families, so it is not known how it writes boxes",
            "give --box_scale (for held-out questions: --eval_box_scale)",
        )
    return declared(None, scale=scale, order=order, frame=frame)


def own_resize(model: str) -> Resize | None:
    """Return the bounds of resizing that the model's own processor has, where its boxes depend on them."""
    family = None if known_family(model) is None else family_at(resolve_model(model))
    return None if family is None or family.boxes is None else family.boxes.resize


def usual_resize(model: str) -> Resize | None:
    """Return the bounds of resizing that the table gives the model's family."""
    family = known_family(model)
    return None if family is None or family.boxes is None else family.boxes.resize
