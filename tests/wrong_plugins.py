"""Wrong plugins, one a block: slot, words of `check`'s fault, words of `run`'s (- where it is none the worse), body.

The body is that of the registered function; `@` begins the line that is to be named, else its definition is.
"""

BLOCKS = r"""
=== loss per case
loss
check: it returns shape (2,), not a scalar
run: it returns shape (2,), not a scalar
return (logits.sigmoid() - target).square().mean((1, 2, 3))

=== loss float
loss
check: it must return a tensor, got float
run: it must return a tensor, got float
return float((logits.sigmoid() - target).square().mean().detach())

=== loss list
loss
check: it must return a tensor, got list
run: it must return a tensor, got list
return [(logits.sigmoid() - target).square().mean()]

=== loss None
loss
check: it must return a tensor, got None: is a `return` missing?
run: it must return a tensor, got None: is a `return` missing?
value = (logits.sigmoid() - target).square().mean()

=== loss detached
loss
check: its value has no gradient
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
check: its value is nan although the logits are finite
run: its value is nan although the logits are finite
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

=== loss whose error has no words
loss
check: float32: Odd.
run: Odd.
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no words")
@raise Odd("x")

=== loss root of 0
loss
check: its gradient is not finite, though its value is
run: its gradient is not finite, though its value is
p = logits.sigmoid()
zero = (p - p).sum(dim=(1, 2, 3))
@root = zero.sqrt()
return (p - target).square().mean() + root.mean()

=== loss root of 0 later
loss
check: its gradient is not finite, though its value is
run: its gradient is not finite, though its value is
bad.calls = getattr(bad, "calls", 0) + 1
p = logits.sigmoid()
value = (p - target).square().mean()
@return value + (p - p).sum().sqrt() if bad.calls > 1 else value

=== loss whose error is no Exception
loss
check: Mine: stop it
run: Mine: stop it
class Mine(BaseException):
    pass
@raise Mine("stop it")

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
run: changes a global setting (torch.set_grad_enabled)
value = (logits.sigmoid() - target).square().mean()
@torch.set_grad_enabled(False)
return value

=== loss changes the number of threads
loss
check: changes a global setting (torch.set_num_threads)
run: changes a global setting (torch.set_num_threads)
value = (logits.sigmoid() - target).square().mean()
@torch.set_num_threads(torch.get_num_threads() + 1)
return value

=== loss changes the default type
loss
check: changes a global setting (torch.set_default_dtype)
run: changes a global setting (torch.set_default_dtype)
@torch.set_default_dtype(torch.float64)
return (logits.sigmoid() - target).square().mean()

=== regularizer None
regularizer
check: it must return a tensor, got None
run: it must return a tensor, got None
total = sum(p.square().sum() for _, p in named_parameters)

=== regularizer float
regularizer
check: it must return a tensor, got float
run: it must return a tensor, got float
return float(sum(p.detach().square().sum() for _, p in named_parameters))

=== regularizer changes weights
regularizer
check: it changes the weights when called
run: it changes the weights when called
for _, p in named_parameters:
    p.data.mul_(0.5)
return sum(p.square().sum() for _, p in named_parameters)

=== regularizer NaN
regularizer
check: its value is nan although all weights are finite
run: its value is nan although all weights are finite
@return sum(p.square().sum() for _, p in named_parameters) * float('nan')

=== regularizer raises
regularizer
check: AttributeError
run: AttributeError
@return named_parameters.missing

=== regularizer negative
regularizer
check: a penalty must be 0 or more
run: a penalty must be 0 or more
return -sum(p.square().sum() for _, p in named_parameters)

=== regularizer constant
regularizer
check: its value has no gradient
run: its value has no gradient
return torch.tensor(3.0)

=== regularizer detached
regularizer
check: its value has no gradient
run: its value has no gradient
@return sum(p.detach().square().sum() for _, p in named_parameters)

=== regularizer writes gradients
regularizer
check: it changes `grad` or `requires_grad` of its inputs
run: it changes `grad` or `requires_grad` of its inputs
for _, p in named_parameters:
    p.grad = torch.ones_like(p)
return sum(p.square().sum() for _, p in named_parameters)

=== regularizer root of 0
regularizer
check: where all weights are 0: its gradient is not finite, though its value is
run: its gradient is not finite, though its value is
@return sum(p.square().sum().sqrt() for _, p in named_parameters)

=== model None
model
check: it must return a torch.nn.Module, got None
run: it must return a torch.nn.Module, got None
made = nn.Conv2d(in_channels, out_channels, 1)

=== model channels
model
check: for 3 channels it must be
run: channels it must be
return nn.Conv2d(in_channels, out_channels + 1, 1)

=== model size
model
check: for 3 channels it must be
run: channels it must be
return nn.Conv2d(in_channels, out_channels, 3)

=== model dict
model
check: it must return a tensor of scores, got dict
run: it must return a tensor of scores, got dict
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return {'out': self.one(image)}
return Net()

=== model tuple in evaluation
model
check: in evaluation it returns a tuple of 2: return the finest scores alone
run: in evaluation it returns a tuple of 2: return the finest scores alone
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        scores = self.one(image)
        return scores if self.training else (scores, scores[..., ::2, ::2])
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
check: its scores have no gradient
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
check: its scores are torch.int64
run: its scores are torch.int64
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return self.one(image).long()
return Net()

=== model without a way back
model
check: its gradient is not finite
run: the gradient of its weights is not finite
class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        return gradient * float('nan')
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return Bad.apply(self.one(image))
return Net()

=== model with layers in a list
model
check: its state dict does not hold all that it learned
run: it computes with a weight of shape
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = [nn.Conv2d(in_channels, 4, 1)], nn.Conv2d(4, out_channels, 1)
    def forward(self, image):
        return self.two(self.one[0](image))
return Net()

=== model with a lazy branch in training
model
check: an image does not reach all of its lazy layers: two.weight, two.bias
run: an image does not reach all of its lazy layers: two.weight, two.bias
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(in_channels, out_channels, 1), nn.LazyConv2d(out_channels, 1)
    def forward(self, image):
        return self.one(image) + (self.two(image) if self.training else 0)
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
check: it has no parameter to train
run: it has no parameter to train
class Net(nn.Module):
    def forward(self, image):
        return image.repeat(1, out_channels, 1, 1)
return Net()

=== model seeds
model
check: it seeds torch's global
run: -
@torch.manual_seed(77)
return nn.Conv2d(in_channels, out_channels, 1)

=== upsampler triples
upsampler
check: twice the height and width
run: twice the height and width
return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)

=== upsampler list
upsampler
check: it must return a torch.nn.Module, got list
run: it must return a torch.nn.Module, got list
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
check: it fills 0.weight with values that are not finite
run: it fills down.0.0.weight with values that are not finite
for p in module.parameters():
    nn.init.constant_(p, float('nan'))

=== initializer replaces
initializer
check: Fill in place
run: it changes down.0.0.weight to torch.float32 (1,). Fill in place
for p in module.parameters():
    p.data = torch.randn(1)

=== initializer inf in some
initializer
check: it fills 2.weight with values that are not finite
run: it fills grow.0.weight with values that are not finite
for layer in module.modules():
    if isinstance(layer, nn.ConvTranspose2d):
        nn.init.constant_(layer.weight, float('inf'))

=== initializer freezes
initializer
check: it changes 0.weight to a weight that is not trained
run: it changes down.0.0.weight to a weight that is not trained
for p in module.parameters():
    nn.init.normal_(p)
    p.requires_grad_(False)

=== initializer takes biases away
initializer
check: it removes 0.bias from the module
run: it removes down.0.0.bias from the module
for layer in module.modules():
    if isinstance(layer, nn.Conv2d):
        layer.bias = None

=== initializer freezes some
initializer
check: it changes 0.weight to a weight that is not trained
run: it changes down.0.0.weight to a weight that is not trained
for p in module.parameters():
    if p.ndim > 1:
        nn.init.normal_(p)
        p.requires_grad = False

=== optimizer None
optimizer
check: it must return a torch.optim.Optimizer, got None: is a `return` missing?
run: it must return a torch.optim.Optimizer, got None: is a `return` missing?
made = torch.optim.SGD(parameters, lr=0.01)


=== optimizer function
optimizer
check: it must return a torch.optim.Optimizer, got type
run: it must return a torch.optim.Optimizer, got type
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

=== optimizer of a tensor of its own
optimizer
check: it holds none of the parameters that it is handed
run: it holds none of the parameters that it is handed
return torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1)

=== optimizer of copies
optimizer
check: it holds none of the parameters that it is handed
run: it holds none of the parameters that it is handed
return torch.optim.SGD([nn.Parameter(p.detach().clone()) for p in parameters], lr=0.1)

=== optimizer idles
optimizer
check: its step has changed no weight in 40 steps
run: its step has changed no weight in 2 steps
class Odd(torch.optim.SGD):
    def step(self, closure=None):
        return None
return Odd(parameters, lr=0.1)

=== optimizer of a negative rate
optimizer
check: it sets the learning rate to -0.1
run: it sets the learning rate to -0.1
made = torch.optim.SGD(parameters, lr=0.1)
made.param_groups[0]['lr'] = -0.1
return made

=== optimizer without a rate
optimizer
check: it sets the learning rate to None
run: it sets the learning rate to None
made = torch.optim.SGD(parameters, lr=0.1)
made.param_groups[0]['lr'] = None
return made

=== optimizer NaN
optimizer
check: its step made weights that are not finite from finite gradients (step 1, learning rate 0.1)
run: its step made weights that are not finite from finite gradients (step 1, learning rate 0.1)
class Odd(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group['params']:
                weight.mul_(float('nan'))
return Odd(parameters, lr=0.1)

=== optimizer NaN at the end
optimizer
check: its step made weights that are not finite from finite gradients (step 2, learning rate 0.1)
run: its step made weights that are not finite from finite gradients (step 2, learning rate 0.1)
class Odd(torch.optim.SGD):
    count = 0
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.count += 1
        for group in self.param_groups if self.count == 2 else ():
            for weight in group['params']:
                weight.div_(0.0)
return Odd(parameters, lr=0.1)

=== optimizer uphill
optimizer
check: it is set to maximize
run: it is set to maximize
return torch.optim.SGD(parameters, lr=0.1, maximize=True)

=== optimizer of no gradient
optimizer
check: its steps do not depend on the gradients
run: -
class Odd(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group['params']:
                weight.zero_()
return Odd(parameters, lr=0.1)

=== optimizer freezes
optimizer
check: its step changes the shape of weights, or sets their `requires_grad` to False
run: its step changes the shape of weights, or sets their `requires_grad` to False
class Odd(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        for weight in self.param_groups[0]['params']:
            weight.requires_grad_(False)
return Odd(parameters, lr=0.1)

=== optimizer without super
optimizer
check: saved and loaded: AttributeError
run: AttributeError
class Odd(torch.optim.Optimizer):
    def __init__(self, base):
        self.base, self.param_groups, self.state, self.defaults = base, base.param_groups, base.state, base.defaults
    def step(self, closure=None):
        self.base.step()
    def zero_grad(self, set_to_none=True):
        self.base.zero_grad()
return Odd(torch.optim.SGD(parameters, lr=0.05))

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

=== scheduler below zero
scheduler
check: in step 3, it sets the learning rate to -0.1
run: it sets the learning rate to -0.01
return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 2 - epochs % 2 else -1.0), 'step'

=== scheduler below zero at once
scheduler
check: it sets the learning rate to -0.1
run: it sets the learning rate to -0.01
return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: -1.0)

=== scheduler NaN
scheduler
check: in step 2, it sets the learning rate to nan
run: it sets the learning rate to nan
return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float('nan') if step else 1.0), 'step'

=== scheduler of another optimizer
scheduler
check: its scheduler sets the learning rates of another optimizer
run: its scheduler sets the learning rates of another optimizer
other = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
return torch.optim.lr_scheduler.StepLR(other, 1)

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
check: it must return an Albumentations transform, got None
run: it must return an Albumentations transform, got None
made = albumentations.NoOp(p=1)

=== transform float
transform
check: must leave image and masks uint8 and uint8, got float32
run: must leave image and masks uint8 and uint8, got float32
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img.astype(np.float32)
return Odd(p=1)

=== transform empties masks
transform
check: it empties the masks
run: -
class Odd(albumentations.DualTransform):
    def apply(self, img, **params):
        return img
    def apply_to_mask(self, mask, **params):
        return mask * 0
return Odd(p=1)

=== transform of a library
transform
check: must leave the number of inputs as it is
run: must leave the number of inputs as it is
return albumentations.ToRGB(p=1)

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
check: must return the image as a numpy array, got list
run: must return the image as a numpy array, got list
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img.tolist()
return Odd(p=1)

=== transform random
transform
check: the same seed gives different results
run: -
class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        return img + np.uint8(np.random.randint(9))
return Odd(p=1)

=== data list
data
check: it must return a segkit.datasets.Dataset, got list
run: it must return a segkit.datasets.Dataset, got list
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
return cases

=== data None
data
check: it must return a segkit.datasets.Dataset, got None
run: it must return a segkit.datasets.Dataset, got None
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
Dataset("bad", ("blob",), tuple(cases))

=== data masks not bool
data
check: must be bool
run: must be bool
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks.astype(np.uint8), (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data masks of other size
data
check: must be bool (1, 16, 16)
run: must be bool (1, 16, 16)
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
check: its image must be a numpy array, got list
run: its image must be a numpy array, got list
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image.tolist(), masks, (1.0, 1.0)))
@return Dataset("bad", ("blob",), tuple(cases))

=== data tuples
data
check: each case must be a segkit Case, got tuple
run: each case must be a segkit Case, got tuple
cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append((image, masks))
@return Dataset("bad", ("blob",), tuple(cases))

=== data spacing
data
check: pixel spacing must be two lengths in mm above 0, or three of a volume, got 1.0
run: pixel spacing must be two lengths in mm above 0, or three of a volume, got 1.0
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

=== postprocess number
postprocess
check: must return an array of masks, got float
run: must return an array of masks, got float
return float(masks.sum())

=== postprocess of another shape
postprocess
check: must return masks like those that it is given, bool (2, 48, 40), got bool (48, 40)
run: must return masks like those that it is given, bool (2, 8, 8), got bool (8, 8)
return masks.any(axis=0)

=== postprocess writes to its masks
postprocess
check: read-only
run: read-only
@masks[0] = True
return masks

=== postprocess draws
postprocess
check: the same masks give different results
run: -
return masks & (np.random.default_rng().random(masks.shape) < 0.5)

=== metric None
metric
check: must return a number, got None
run: must return a number, got None: is a `return` missing?
value = float((prediction & truth).sum())

=== metric array
metric
check: must return a number, got ndarray of shape (40,)
run: must return a number, got ndarray of shape (24,)
return (prediction & truth).sum(0)

=== metric tensor of several
metric
check: must return a number, got Tensor
run: must return a number, got Tensor of shape (3,)
return torch.ones(3)

=== metric text
metric
check: must return a number, got str
run: must return a number, got str
return "0.50"

=== metric seeds
metric
check: it seeds numpy's global
run: -
@np.random.seed(3)
return float((prediction == truth).mean())

=== metric raises
metric
check: IndexError
run: IndexError
@return [][0]

=== metric writes to its truth
metric
check: it writes to its truth
run: it writes to its truth
@truth[:] = False
return float((prediction & truth).sum())

=== metric writes to its prediction
metric
check: it writes to its prediction
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
