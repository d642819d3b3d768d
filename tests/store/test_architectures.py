"""The list of architectures that can be exported."""

from core.store.architectures import EXPORTED, WITHOUT_VERSION_LIMIT
from core.store.supported import has_class_of

WITH_ENCODER = {
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "pegasus")
}


def test_the_list_of_architectures_is_that_of_optimum() -> None:
    """Decoder-only models whose exporter takes this version of transformers, or is let to."""
    import transformers
    from optimum.exporters.openvino import model_configs  # noqa: F401 - registers the exporters
    from optimum.exporters.tasks import TasksManager
    from packaging.version import Version
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    now, found = Version(transformers.__version__), set()
    for model_type, exporters in TasksManager._SUPPORTED_MODEL_TYPE.items():
        if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or model_type in WITH_ENCODER:
            continue
        exporter = exporters.get("openvino", {}).get("text-generation-with-past")
        if exporter is None:
            continue
        lowest = Version(getattr(exporter.func, "MIN_TRANSFORMERS_VERSION", None) or "0")
        highest = getattr(exporter.func, "MAX_TRANSFORMERS_VERSION", None)
        fits = highest is None or now <= Version(highest)
        if now >= lowest and (fits or model_type in WITHOUT_VERSION_LIMIT):
            found.add(model_type)
    assert found == EXPORTED
    classes = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert [each for each in EXPORTED if not has_class_of(each, [classes[each]])] == []
