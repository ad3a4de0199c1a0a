"""Train a small denoiser whose middle is one graph stage, on photos that come with scikit-image.

python examples/denoise.py                          # minutes on a CPU
python examples/denoise.py --layer GATv2Conv        # any layer of torch_geometric.nn that fits
"""

import argparse
import time

import skimage.data
import torch
import torch.nn.functional as F
import torch_geometric.nn
from torch import Tensor, nn

from glic_pyg.graph import GraphBuilder
from glic_pyg.nn import GFAStage

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sigma", type=float, default=25, help="of the noise, of 255 (default: %(default)s)")
parser.add_argument("--channels", type=int, default=32)
parser.add_argument("--degree", type=int, default=16)
parser.add_argument("--depth", type=int, default=2, help="graph layers; 0 leaves convolutions alone")
parser.add_argument("--layer", help="of torch_geometric.nn, in place of glic_pyg's attention")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--steps", type=int, default=50, help="per epoch")
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--patch-size", type=int, default=64)
parser.add_argument("--lr", type=float, default=5e-3)
args = parser.parse_args()

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(picture) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float().div(255).to(device)


train_pictures = [load(f()) for f in (skimage.data.astronaut, skimage.data.coffee, skimage.data.rocket)]
test_picture = load(skimage.data.chelsea())[None, :, :256, :256]


class Denoiser(nn.Module):
    """x + up(stage(down(x))), features at about unit variance; what up returns takes the noise away."""

    def __init__(self, channels: int):
        super().__init__()
        self.down = nn.Conv2d(3, channels, 4, stride=2, padding=1)
        self.stage = GFAStage(
            channels=channels,
            depth=args.depth,
            heads=4,
            position_hidden=32,
            graph_builder=GraphBuilder(degree=args.degree),
            layer=getattr(torch_geometric.nn, args.layer) if args.layer else None,
        )
        self.up = nn.Sequential(nn.Conv2d(channels, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.stage(self.down((x - 0.5) / 0.25))) / 4


model = Denoiser(args.channels).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * args.steps)


def noisy(x: Tensor) -> Tensor:
    return x + args.sigma / 255 * torch.randn_like(x)


def crops() -> Tensor:
    patches = []
    for _ in range(args.batch_size):
        picture = train_pictures[torch.randint(len(train_pictures), ())]
        top, left = (int(torch.randint(side - args.patch_size, ())) for side in picture.shape[1:])
        patches.append(picture[:, top : top + args.patch_size, left : left + args.patch_size])
    return torch.stack(patches)


def train() -> float:
    model.train()
    total_loss = 0.0
    for _ in range(args.steps):
        x = crops()
        optimizer.zero_grad()
        loss = F.mse_loss(model(noisy(x)), x)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total_loss += loss.item()
    return total_loss / args.steps


@torch.no_grad()
def test(picture: Tensor) -> float:
    return -10 * float((picture.clamp(0, 1) - test_picture).square().mean().log10())


test_input = noisy(test_picture)
print(f"Parameters: {sum(p.numel() for p in model.parameters())}, Noisy: {test(test_input):.2f} dB")
for epoch in range(1, args.epochs + 1):
    start = time.perf_counter()
    loss = train()
    model.eval()
    with torch.no_grad():
        psnr = test(model(test_input))
    print(
        f"Epoch: {epoch:02d}, Loss: {loss:.5f}, Test: {psnr:.2f} dB, "
        f"Time: {time.perf_counter() - start:.1f}s",
        flush=True,
    )
