"""ruotianluo's ImageCaptioning.pytorch: fc, newfc and att2in2 with the features of a ResNet.

Its files: model.pth, a state dict, and infos.pkl, a pickle with the options of the run and the words. The network that
made the features is a file of its own. Id 0 ends a caption, begins it and fills it up; the words have the ids from 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvision.models.resnet import ResNet

from export.checkpoints.imported import IMAGENET_MEAN, IMAGENET_STD, KARPATHY, Imported, Source, Words, by_id
from export.checkpoints.pickles import Record, read_pickle
from export.checkpoints.resnets import body, build, caffe, grid_size
from export.checkpoints.ruotianluo_models import CORE_NAMES, IMAGE_NAMES, AttentionDecoder, Encoder, FcDecoder
from export.checkpoints.states import State, load, misfits, read_state, require_none, size
from export.errors import ExportError

LAYOUT = "ruotianluo's ImageCaptioning.pytorch"
SIDE = 448  # the project does not resize; on photographs of this size the last grid has 14 x 14 places


def read(source: Source) -> Imported:
    """Reads a model, its infos and the weights of its network. Raises ExportError that lists all faults."""
    words, options, faults = _infos(source.vocabulary)
    kind = options.get("caption_model")
    if kind not in ("fc", "newfc", "att2in2"):
        raise ExportError(f"{source.vocabulary} is of a model of the kind {kind}: only fc, newfc and att2in2 are read")
    state = read_state(source.checkpoint)
    decoder = _attention_decoder(state) if kind == "att2in2" else _fc_decoder(kind, state)
    image = source.image(SIDE, SIDE, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
    network, network_state = _network(source)
    parts = body(network)
    encoder = Encoder(parts, grid_size(parts, image.height, image.width) if kind == "att2in2" else None)
    faults += misfits(decoder, state) + misfits(parts, network_state, "network.")
    channels = network.fc.in_features
    if channels != decoder.features:
        faults.append(f"the network has {channels} channels, the model reads {decoder.features}")
    if len(words.words) != decoder.logit.out_features:
        faults.append(
            f"there are {len(words.words)} words, the end included, the model has {decoder.logit.out_features}"
        )
    require_none(faults, f"{source.checkpoint} with {source.vocabulary} and {source.encoder_weights}", LAYOUT)
    load(parts, network_state)
    return Imported(
        encoder=encoder.requires_grad_(False).eval(),
        decoder=load(decoder, state),
        words=words,
        image=image,
        origin=f"{LAYOUT}, {kind}, maxout LSTM of {decoder.logit.in_features} units",
    )


def _fc_decoder(kind: str, state: State) -> FcDecoder:
    image, core = IMAGE_NAMES[kind], CORE_NAMES[kind]
    return FcDecoder(
        kind,
        words=size(state, ("embed.weight", 0), ("logit.weight", 0)),
        features=size(state, (f"{image}.weight", 1)),
        embedding=size(state, ("embed.weight", 1), (f"{image}.weight", 0), (f"{core}.i2h.weight", 1)),
        units=size(state, (f"{core}.h2h.weight", 1), ("logit.weight", 1)),
    )


def _attention_decoder(state: State) -> AttentionDecoder:
    norms = ("att_embed.0.running_mean" in state) + ("att_embed.4.running_mean" in state)
    return AttentionDecoder(
        words=size(state, ("embed.0.weight", 0), ("logit.weight", 0)),
        features=size(state, (f"att_embed.{min(norms, 1)}.weight", 1)),
        embedding=size(state, ("embed.0.weight", 1), ("core.i2h.weight", 1)),
        units=size(state, ("core.h2h.weight", 1), ("logit.weight", 1)),
        attention=size(state, ("ctx2att.weight", 0), ("core.attention.alpha_net.weight", 1)),
        norms=norms,
    )


def _network(source: Source) -> tuple[ResNet, State]:
    """Builds the network of the features, and returns its weights under the names of its parts."""
    if source.encoder_weights is None:
        raise ExportError(
            f"checkpoints of {LAYOUT} do not contain the network that made the features: pass the file that the "
            "project used, such as resnet101.pth, with --encoder-weights"
        )
    if source.encoder_weights == "random":
        network = caffe(build({}, source.encoder or "resnet101"))
        return network, body(network).state_dict()
    state = read_state(Path(source.encoder_weights))
    network = caffe(build(state, source.encoder or "resnet101"))
    places = {name: str(i) for i, (name, _) in enumerate(network.named_children())}
    parts = {name: name.partition(".") for name in state if not name.startswith("fc.")}
    return network, {f"{places.get(part, part)}.{rest}": state[name] for name, (part, _, rest) in parts.items()}


def _infos(path: Path) -> tuple[Words, Mapping[str, Any], list[str]]:
    """Reads the words and the options of a run, and lists their faults."""
    infos = read_pickle(path, ("Namespace",), "file of infos")
    options = infos.get("opt") if isinstance(infos, dict) else None
    if not isinstance(options, Record) or not isinstance(vocabulary := infos.get("vocab"), dict):
        raise ExportError(f"{path} is not a file of infos of {LAYOUT}: it has no opt or no vocab")
    ids = {str(word): int(i) for i, word in vocabulary.items()}
    pad, start, end = (int(options.fields.get(name, 0)) for name in ("pad_idx", "bos_idx", "eos_idx"))
    unnamed = {pad: "<pad>", start: "<start>", end: "<end>"}  # mostly all are 0, which is the end
    words, faults = by_id(ids, {i: name for i, name in unnamed.items() if i not in ids.values()})
    folders = {name: str(options.fields.get(name, "")) for name in ("input_fc_dir", "input_att_dir")}
    if any("cocobu" in folder for folder in folders.values()) or options.fields.get("use_box"):
        faults.append(
            "it was trained on bottom-up features of regions, which need a detector: only features of a ResNet are read"
        )
    return Words(words, start, end, None if pad == end else pad, ids.get("UNK"), KARPATHY), options.fields, faults
