"""Entry point of the group lmms_eval.models: makes `--model perpo` known to lmms-eval's own command line."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest(model_id="perpo", simple_class_path="perpo_eval.engines.lmms_model.PerpoModel")
