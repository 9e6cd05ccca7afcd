"""Wrong plugins, one a block: slot, words of `check`'s fault, words of `run`'s (- where it is none the worse), body.

The body is that of the registered function; `@` begins the line that is to be named, else its definition is.
"""

BLOCKS = r"""
=== loss per case
loss
check: no scalar
run: no scalar
return (logits.sigmoid() - target).square().mean((1, 2, 3))

=== loss float
loss
check: it gives a float, no tensor
run: it gives a float, no tensor
return float((logits.sigmoid() - target).square().mean())

=== loss list
loss
check: it gives a list, no tensor
run: it gives a list, no tensor
return [(logits.sigmoid() - target).square().mean()]

=== loss None
loss
check: it gives None, no tensor: is a `return` missing?
run: it gives None, no tensor: is a `return` missing?
value = (logits.sigmoid() - target).square().mean()

=== loss detached
loss
check: no gradient
run: its value has no gradient
p = logits.sigmoid()
@q = p.detach()
return (q - target).square().mean()

=== loss in place on logits
loss
check: it writes to its logits
run: it writes to its logits
@p = logits.sigmoid_()
return (p - target).square().mean()

=== loss in place on target
loss
check: it writes to its target
run: it writes to its target
p = logits.sigmoid()
@target.mul_(0.9)
return (p - target).square().mean()

=== loss assigns to target
loss
check: it writes to its target
run: it writes to its target
p = logits.sigmoid()
@target[...] = 0
return (p - target).square().mean()

=== loss writes behind autograd
loss
check: it writes to its target
run: it writes to its target
target.numpy()[:] = 0
return (logits.sigmoid() - target).square().mean()

=== loss NaN
loss
check: it gives nan
run: it gives nan by itself: the model's scores are finite
p = logits.sigmoid()
@odd = (p - 2).log()
return odd.mean() + (p - target).square().mean()

=== loss raises
loss
check: IndexError: no such thing
run: IndexError: no such thing
@raise IndexError("no such thing")

=== loss RuntimeError of torch
loss
check: Sizes of tensors must match
run: two tensors that are joined differ in height or width
@return torch.cat([logits, target[:, :, :3]], 1).mean()

=== loss asserts
loss
check: AssertionError: assert logits.shape[0] == 99
run: AssertionError: assert logits.shape[0] == 99
@assert logits.shape[0] == 99
return (logits.sigmoid() - target).square().mean()

=== loss exits
loss
check: it calls sys.exit(0)
run: it calls sys.exit(0)
@raise SystemExit(0)

=== loss raises what is no exception
loss
check: Own
run: Own
class Own(BaseException):
    def __str__(self):
        raise RuntimeError("no words")
@raise Own

=== loss raises GeneratorExit
loss
check: GeneratorExit
run: GeneratorExit
@raise GeneratorExit

=== loss raises an error of the user's
loss
check: mine
run: mine
@raise segkit.UserError("mine")

=== transform raises what is no exception
transform
check: CancelledError: stopped
run: CancelledError: stopped
class Bad(albumentations.ImageOnlyTransform):
    def apply(self, image, **parameters):
@        raise __import__("asyncio").CancelledError("stopped")
return Bad(p=1)

=== loss seeds torch
loss
check: it seeds torch's global random generator
run: -
@torch.manual_seed(0)
return (logits.sigmoid() - target).square().mean()

=== loss seeds numpy
loss
check: it seeds numpy's global random generator
run: -
@np.random.seed(0)
return (logits.sigmoid() - target).square().mean()

=== loss seeds Python
loss
check: it seeds Python's global random generator
run: -
@random.seed(3)
return (logits.sigmoid() - target).square().mean()

=== loss switches gradients off
loss
check: changes a global setting (torch.set_grad_enabled)
run: -
value = (logits.sigmoid() - target).square().mean()
@torch.set_grad_enabled(False)
return value

=== loss changes the default type
loss
check: changes a global setting (torch.set_default_dtype)
run: -
@torch.set_default_dtype(torch.float64)
return (logits.sigmoid() - target).square().mean()

=== regularizer None
regularizer
check: it gives None
run: it gives None
total = sum(p.square().sum() for _, p in named_parameters)

=== regularizer float
regularizer
check: it gives a float, no
run: it gives a float, no tensor
return float(sum(p.detach().square().sum() for _, p in named_parameters))

=== regularizer changes weights
regularizer
check: it changes the weights
run: it changes the weights when called
for _, p in named_parameters:
    p.data.mul_(0.5)
return sum(p.square().sum() for _, p in named_parameters)

=== regularizer NaN
regularizer
check: it gives nan
run: it gives nan by itself
return sum(p.square().sum() for _, p in named_parameters) * float('nan')

=== regularizer raises
regularizer
check: AttributeError
run: AttributeError
@return named_parameters.missing

=== model None
model
check: it gives None, no torch.nn.Module
run: it gives None, no torch.nn.Module
made = nn.Conv2d(in_channels, out_channels, 1)

=== model channels
model
check: that should be
run: that should be
return nn.Conv2d(in_channels, out_channels + 1, 1)

=== model size
model
check: that should be
run: that should be
return nn.Conv2d(in_channels, out_channels, 3)

=== model dict
model
check: a dict, no tensor
run: it gives a dict, no tensor of scores
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return {'out': self.one(image)}
return Net()

=== model raises
model
check: KeyError: 'missing'
run: KeyError: 'missing'
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
@        raise KeyError('missing')
return Net()

=== model NaN
model
check: scores are not finite
run: the model's scores are not finite before any step
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return self.one(image) * float('nan')
return Net()

=== model detached
model
check: does not require grad
run: its scores have no gradient
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return self.one(image).detach()
return Net()

=== model rounds
model
check: -
run: its scores are torch.int64
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return self.one(image).long()
return Net()

=== model joins sizes
model
check: Sizes of tensors must match
run: Sizes of tensors must match
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
@        return torch.cat([self.one(image), self.one(image[..., 2:])], 1)
return Net()

=== model without parameters
model
check: grad
run: it has no parameter to train
class Net(nn.Module):
    def forward(self, image):
        return image.repeat(1, out_channels, 1, 1)
return Net()

=== model seeds
model
check: it seeds torch's global
run: -
@torch.manual_seed(1)
return nn.Conv2d(in_channels, out_channels, 1)

=== upsampler triples
upsampler
check: twice the height and width
run: twice the height and width
return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)

=== upsampler list
upsampler
check: it gives a list, no torch.nn.Module
run: it gives a list, no torch.nn.Module
return [nn.Conv2d(in_channels, out_channels, 1)]

=== upsampler raises
upsampler
check: ZeroDivisionError
run: ZeroDivisionError
@return nn.Conv2d(in_channels, 0 // 0, 1)

=== initializer raises
initializer
check: AttributeError
run: AttributeError
@module.weight.fill_(1)

=== initializer NaN
initializer
check: not finite
run: the model's scores are not finite before any step
for p in module.parameters():
    nn.init.constant_(p, float('nan'))

=== initializer replaces
initializer
check: Fill in place
run: model.unet with initializer.bad
for p in module.parameters():
    p.data = torch.randn(1)

=== optimizer None
optimizer
check: it gives None, no torch.optim.Optimizer: is a `return` missing?
run: it gives None, no torch.optim.Optimizer: is a `return` missing?
made = torch.optim.SGD(parameters, lr=0.01)


=== optimizer function
optimizer
check: no torch.optim.Optimizer
run: no torch.optim.Optimizer
return torch.optim.SGD

=== optimizer refuses
optimizer
check: Invalid learning rate
run: Invalid learning rate
@return torch.optim.SGD(parameters, lr=-1.0)

=== optimizer step raises
optimizer
check: AttributeError
run: AttributeError
class Odd(torch.optim.SGD):
    def step(self, closure=None):
@        return self.missing
return Odd(parameters, lr=0.1)

=== optimizer closure
optimizer
check: closure
run: its step needs a closure
class Odd(torch.optim.SGD):
    def step(self, closure):
        return closure()
return Odd(parameters, lr=0.1)

=== optimizer keeps what cannot be saved
optimizer
check: its state cannot be saved
run: cannot be saved without pickle
class Odd(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            self.state[group["params"][0]]["history"] = object()
        return super().step()
return Odd(parameters, lr=0.1)

=== optimizer seeds
optimizer
check: it seeds torch's global
run: -
@torch.manual_seed(0)
made = torch.optim.SGD(parameters, lr=0.01)
return made

=== scheduler None
scheduler
check: None: is a `return` missing?
run: None: is a `return` missing?
made = torch.optim.lr_scheduler.StepLR(optimizer, 3)

=== scheduler unit
scheduler
check: 'epoch' or 'step'
run: 'epoch' or 'step'
return torch.optim.lr_scheduler.StepLR(optimizer, 3), 'batch'

=== scheduler step raises
scheduler
check: lost
run: lost
class Odd(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        if self.last_epoch > 0:
@            raise ValueError('lost')
        return self.base_lrs
return Odd(optimizer)

=== scheduler by step raises
scheduler
check: lost
run: lost
class Odd(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        if self.last_epoch > 0:
@            raise ValueError('lost')
        return self.base_lrs
return Odd(optimizer), 'step'

=== transform None
transform
check: it gives None, no Albumentations transform
run: it gives None, no Albumentations transform
made = albumentations.NoOp(p=1)

=== transform float
transform
check: not become float32
run: not become float32
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img.astype(np.float32)
return Odd(p=1)

=== transform size
transform
check: of one size
run: of one size
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img[::2]
return Odd(p=1)

=== transform raises
transform
check: gone
run: gone
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
@        raise LookupError('gone')
return Odd(p=1)

=== transform list
transform
check: it gives an image of type list
run: it gives an image of type list
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img.tolist()
return Odd(p=1)

=== transform random
transform
check: one key gives several results
run: -
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img + np.uint8(np.random.randint(9))
return Odd(p=1)

=== data list
data
check: it gives a list, no segkit.datasets.Dataset
run: it gives a list, no segkit.datasets.Dataset
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
return cases

=== data None
data
check: it gives None
run: it gives None
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
Dataset("bad", ("blob",), tuple(cases))

=== data masks not bool
data
check: they should be bool
run: they should be bool
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks.astype(np.uint8), (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data masks of other size
data
check: they should be bool (1, 16, 16)
run: they should be bool (1, 16, 16)
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks[:, 1:], (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data NaN
data
check: not finite
run: not finite
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", np.full((16, 16), np.nan, np.float32), masks, (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data twice the same
data
check: are called 'c'
run: are called 'c'
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case("c", f"p{number // 2}", image, masks, (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data lists
data
check: its image is a list
run: its image is a list
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image.tolist(), masks, (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data tuples
data
check: a case is a tuple
run: a case is a tuple
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append((image, masks))
@return Dataset("bad", ("blob",), tuple(cases))

=== data spacing
data
check: pixel spacing is 1.0
run: pixel spacing is 1.0
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, 1.0))
@return Dataset("bad", ("blob",), tuple(cases))

=== data raises
data
check: FileNotFoundError: here/images
run: FileNotFoundError: here/images
@raise FileNotFoundError("here/images")

=== data seeds
data
check: it seeds numpy's
run: -
@np.random.seed(0)
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
return Dataset("bad", ("blob",), tuple(cases))

=== metric None
metric
check: it gives None, no number
run: it gives no number, but None: is a `return` missing?
value = float((prediction & truth).sum())

=== metric array
metric
check: it gives a ndarray, no number
run: a ndarray of shape (24,)
return (prediction & truth).sum(0)

=== metric tensor of several
metric
check: it gives a Tensor
run: a Tensor of shape (3,)
return torch.ones(3)

=== metric raises
metric
check: IndexError
run: IndexError
@return [][0]

=== metric writes to its truth
metric
check: it writes to its inputs
run: it writes to its truth
@truth[:] = False
return float((prediction & truth).sum())

=== metric writes to its prediction
metric
check: it writes to its inputs
run: it writes to its prediction
@prediction |= True
return float((prediction & truth).sum())

=== metric of probabilities
metric
check: register it with `uses="probability"`
run: register it with `uses="probability"`
@return float(np.square(prediction - truth).mean())

=== metric of probabilities in torch
metric
check: register it with `uses="probability"`
run: register it with `uses="probability"`
@return float((torch.from_numpy(prediction) - torch.from_numpy(truth)).square().mean())

=== metric worse for the truth
metric
check: register it with `lower_is_better=True`
run: -
return float((prediction != truth).mean())

"""
