"""Train the ranker: a contrastive model that scores how well a picture matches a caption (CLIP).

It is trained on the pipeline's own pairs. Or, where a hub is reachable, pretrained weights of
open_clip are taken as they are; they bring their own tokens with them.
"""
