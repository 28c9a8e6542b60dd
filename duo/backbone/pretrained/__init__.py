"""A model that transformers saved, as a backbone: its FFNs become big, its small ones are new.

fields       every field of config.json: read, or refused by name
families     what the fields of each family say of the shape
names        its tensors' names and ours
find         its folder, here or from the hub
read         its weights, into a backbone
write        a backbone's big FFNs, as such a model
"""

from duo.backbone.pretrained.families import shape_of_model
from duo.backbone.pretrained.find import find_beside, find_folder, find_json
from duo.backbone.pretrained.read import files_digest, read_backbone
from duo.backbone.pretrained.write import write_model

__all__ = ["files_digest", "find_beside", "find_folder", "find_json", "read_backbone", "shape_of_model", "write_model"]
