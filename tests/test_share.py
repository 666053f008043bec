"Batches that come through memory which is used again are those that one process makes, for as long as somebody holds them"
import pytest,torch
from prp_fastai.all import *

def raw(video_folder, workers, **kwargs):
    "A DataLoader of the frames as workers send them"
    set_seed(3)
    dl = PRPDataLoaders.from_folder(video_folder, size=24, bs=2, num_workers=workers, valid_pct=.2, **kwargs).train
    dl.after_batch = Pipeline()
    return dl

def same(a, b): return all(x.equal(y) if isinstance(x, Tensor) else x==y for x,y in zip(a, b, strict=True)) and [*map(type, a)]==[*map(type, b)]

@pytest.mark.parametrize('yuv', [False,True])
@pytest.mark.parametrize('workers', [1,2])
def test_batches_that_are_kept_stay_as_they_are(video_folder, workers, yuv):
    "More than the memory holds: the rest comes PyTorch's way"
    kept = [b for _ in range(3) for b in raw(video_folder, workers, yuv=yuv)]
    want = [b for _ in range(3) for b in raw(video_folder, 0, yuv=yuv)]
    assert len(kept)==len(want)>8 and all(map(same, kept, want))

def test_a_part_of_a_batch_keeps_it(video_folder):
    kept = [b[0][-1:,:,3:9] for b in raw(video_folder, 2)]
    assert all(a.equal(b[0][-1:,:,3:9]) for a,b in zip(kept, raw(video_folder, 0), strict=True))

def test_memory_is_used_again(video_folder):
    dl,where,n = raw(video_folder, 1, rates=(1,)),set(),0
    for b in dl:
        where.add(b[0].data_ptr())
        n += 1
        del b
    assert n>3>=len(where)

def test_what_is_dropped_is_free_and_what_is_held_is_not(video_folder):
    dl = raw(video_folder, 1)
    it = iter(dl)
    batch,shared = next(it),dl.shared
    it.close()
    assert shared.taken[0,0] and dl.shared is None
    del batch
    assert not shared.taken[0,0]

def test_two_epochs_at_a_time(video_folder):
    dl = raw(video_folder, 1)
    dl.shuffle = False
    one = iter(dl)
    a = next(one)
    list(dl)
    assert len([a, *one])==len(dl)

def test_items_that_are_no_bytes_come_too(video_folder):
    def floats(workers):
        dl = raw(video_folder, workers)
        dl.after_item.add(AsFloat())
        return list(dl)
    assert all(map(same, floats(1), floats(0)))

class AsFloat(ItemTransform):
    order = 9
    def encodes(self, o): return o[0].float(),o[1]
