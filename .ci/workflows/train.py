import torch

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

# The two lines of the README:
from gradient import GradientEngine

# Auto-discovers workspace/repo from current directory
engine = GradientEngine.attach(model, optimizer)

# What it says about training: periodic auto-commit.
engine.autocommit(every=10)
start = engine.current_step

for step in range(start + 1, start + 31):
    loss = (model(torch.randn(32, 4)) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    engine.maybe_commit(step)
