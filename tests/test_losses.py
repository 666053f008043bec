"Equations 1, 2 and 4, against loops written from the paper"
import math,torch
from prp_fastai.losses import *

def naive_ce(a, c):
    p = [math.exp(o) for o in a]
    return -math.log(p[c]/sum(p))

def naive_m_mse(Y, G, M):
    total = 0.
    for ch in range(Y.shape[0]):
        for t in range(Y.shape[1]):
            for i in range(Y.shape[2]):
                for j in range(Y.shape[3]): total += M[0,t,i,j].item()*(Y[ch,t,i,j]-G[ch,t,i,j]).item()**2
    return total/Y.numel()

def batch(n=3):
    logits,rate = torch.randn(n, 4, requires_grad=True),torch.tensor([0,3,1])
    return (logits, torch.rand(n,3,4,5,5, requires_grad=True)),(rate, torch.rand(n,3,4,5,5), torch.rand(n,1,4,5,5)*1.2+.8)

def test_parts_and_sum():
    (logits,Y),(rate,G,M) = batch()
    loss = PRPLoss(reduction='none')
    got = loss((logits,Y), rate, G, M)
    for i in range(3):
        d,g = naive_ce(logits[i].tolist(), rate[i]),naive_m_mse(Y[i], G[i], M[i])
        assert abs(loss.parts['loss_d'][i].item()-d)<1e-5 and abs(loss.parts['loss_g'][i].item()-g)<1e-5
        assert abs(got[i].item()-(.1*d+1*g))<1e-5

def test_gradient_of_the_reconstruction():
    _,(rate,G,M) = batch()
    for M in (M, M.expand(-1,3,-1,-1,-1)):
        Y = torch.rand_like(G).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda o: m_mse(o, G.double(), M.double()), Y)
    Y = Y.detach().bfloat16().requires_grad_()
    m_mse(Y, G, M).mean().backward()
    assert Y.grad.dtype==torch.bfloat16

def test_each_head_alone_and_weights():
    (logits,Y),y = batch()
    d,g = PRPLoss(('rate',), lambda_d=.5)((logits,), *y),PRPLoss(('recon',), lambda_g=2.)((Y,), *y)
    both = PRPLoss(lambda_d=.5, lambda_g=2.)((logits,Y), *y)
    torch.testing.assert_close(both, d+g)

def test_gradients_reach_both_heads_and_parts_hold_no_graph():
    (logits,Y),y = batch()
    loss = PRPLoss()
    loss((logits,Y), *y).backward()
    assert logits.grad.abs().sum()>0 and Y.grad.abs().sum()>0
    assert not any(o.requires_grad for o in loss.parts.values())
