"""LAVT's public code, its data set class and model unchanged, trained for a few updates on RefScenes.

    python benchmarks/peer_data.py

The clone is where ``bench_peers`` has it. Scenes are drawn, laid out as its REFER class expects them, and read by
its ``ReferDataset``; its model (Swin-T, random weights) takes the updates. Prints every loss, and fails where one is no
number, or where a mask that it reads is not as large as annotated.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import torch
from bench_peers import stand_in, their_model
from torch.utils.data import DataLoader

from refstudy.data.refer import load_refer
from refstudy.data.scenes.write import make_refscenes
from refstudy.data.source import lay_out
from refstudy.data.words import build_tokenizer

SIDE, PAIRS, SCENES = 128, 4, 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=20)
    given = parser.parse_args()
    torch.manual_seed(0)
    model, _ = their_model("lavt")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_refscenes(root / "drawn", "refscenes", {"train": SCENES}, size=SIDE)
        lay_out(root / "drawn", "refscenes", root)
        build_tokenizer().save_pretrained(root / "words")
        words = sorted(build_tokenizer().get_vocab().items(), key=lambda word: word[1])
        (root / "words" / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")
        for name in ("h5py", "skimage", "skimage.io"):  # imported there, not used for this
            stand_in(name)
        sys.argv = ["train.py", "--refer_data_root", str(root), "--img_size", str(SIDE)]
        sys.argv += ["--bert_tokenizer", str(root / "words")]
        import transforms as their_transforms  # type: ignore[import-not-found]
        from data import dataset_refer_bert  # type: ignore[import-not-found]

        resize = their_transforms.Resize(SIDE, SIDE)
        normal = their_transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        seen = their_transforms.Compose([resize, their_transforms.ToTensor(), normal])
        data = dataset_refer_bert.ReferDataset(dataset_refer_bert.args, image_transforms=seen, split="train")
        areas = load_refer(root / "drawn", "refscenes", "unc").drop_duplicates("ref_id").set_index("ref_id")["area"]
        wrong = [ref for k, ref in enumerate(data.ref_ids) if data[k][1].sum() != areas[ref]]
        if wrong or len(data) != len(areas):
            sys.exit(f"{len(wrong)} of {len(data)} masks are not those annotated, such as referent {wrong[:1]}")
        print(f"{len(data)} referents read; every mask has its annotated area")
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
        batches = iter(DataLoader(data, PAIRS, shuffle=True, drop_last=True))
        for update in range(1, given.updates + 1):
            images, targets, ids, mask = next(batches)
            logits = model(images, ids.squeeze(1), mask.squeeze(1))
            loss = torch.nn.functional.cross_entropy(logits, targets, torch.tensor([0.9, 1.1]))
            if not math.isfinite(loss.item()):
                sys.exit(f"update {update}: the loss is {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"update {update}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
