"What a run is, said once: in Python, in the shell, in `settings.json` and in an encoder's file"
import dataclasses,inspect,json,pickle
import pytest,torch
from safetensors.torch import load_file,save_file
from prp_fastai.all import *

tiny = dict(size=32, bs=4, num_workers=0)
options = '''out root valid valid-pct by-group encoder width heads rates clip-len recon-rate size flip preset crop short start redraw-valid diff norm
per-channel time-interp eps fake-gt opt-func lr schedule epochs bs final mean-colour lambda-d attn lambda-g mom wd head-lr-mult patience num-workers
manifest cache backend yuv read-size max-bad speed accumulate log resume config seed'''.split()

def same(a, b):
    "Whether two models have the same weights, to the last bit"
    a,b = a.state_dict(),b.state_dict()
    return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def trained(dls, *args, **kwargs):
    set_seed(3)
    learn = prp_learner(dls, *args, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

@pytest.mark.parametrize('name', presets)
def test_a_value_and_its_fields_as_keywords_train_the_same_weights(video_folder, name):
    recipe = get_recipe(name, size=32, bs=4, width=.05, arch='r3d')
    clips = {k: getattr(recipe, k) for k in field_names(Sampling, Crop, Attention)}
    model = {k: getattr(recipe, k) for k in field_names(Heads, Optim) if k!='bs'}
    def loaders(**kwargs):
        set_seed(3)
        return PRPDataLoaders.from_folder(video_folder, num_workers=0, **kwargs)
    a = trained(loaders(recipe=recipe))
    b = trained(loaders(**clips, bs=4), **model)
    c = trained(loaders(preset=name, size=32, bs=4), 'r3d', width=.05, preset=name)
    assert a.recipe==b.recipe==c.recipe==recipe and same(a.model, b.model) and same(a.model, c.model)

def test_a_recipe_is_a_value():
    assert Recipe()==paper and hash(Recipe())==hash(paper) and pickle.loads(pickle.dumps(authors))==authors
    assert eval(repr(authors))==authors and repr(paper)=='Recipe()' and repr(get_recipe('small', size=56)).count('=')==9
    with pytest.raises(dataclasses.FrozenInstanceError): paper.size = 56
    with pytest.raises(TypeError, match='sharpness'): get_recipe(paper, sharpness=1)
    assert get_recipe(paper, heads='rate', rates=[1,2])==get_recipe(paper, heads=('rate',), rates='1,2')

@pytest.mark.parametrize('recipe', [*presets.values(), get_recipe(paper, attn=None, rates=(1,2), heads=('recon',), head_convs=False)])
def test_json_and_back(recipe): assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))==recipe

def test_functions_and_modules_are_kept_by_name(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **tiny)
    learn = prp_learner(dls, c3d(.05), opt_func=partial(prp_adamw, wd=.1))
    said = encoder_card(learn)
    assert (said['arch'],said['opt_func'])==('C3D','prp_adamw') and json.dumps(said)
    assert encoder_card(prp_learner(dls, c3d, width=.05))['arch']=='c3d'

def test_fields_are_said_where_they_are_taken():
    "Signatures show fields with their defaults and comments; what a learner cannot change of clips that are there, it refuses"
    for f,parts in ((prp_dblock,(Sampling,Crop,Attention)), (PRPDataLoaders.from_csv,(Sampling,Crop,Attention)), (prp_learner,(Heads,Optim)), (prp_pretrain,recipe_parts)):
        shown = inspect.signature(f).parameters
        for k in field_names(*parts):
            if k in ('arch','heads','bs','clips','jitter','weights') and f is not prp_pretrain: continue
            assert shown[k].default==getattr(paper, k), (f, k)

def test_clips_are_those_of_the_dataloaders(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, recipe=small, **tiny)
    learn = prp_learner(dls, width=.05, recipe=authors)
    assert learn.recipe==get_recipe(paper, width=.05, size=32, bs=4)
    for k,v in dict(size=56, bs=2, crop='center').items():
        with pytest.raises(TypeError, match=k): prp_learner(dls, width=.05, **{k:v})
    assert dls.test_dl(dls.items).recipe==dls.valid.recipe==dls.recipe

def test_the_recipe_of_a_datablock_made_by_hand(video_folder):
    want = get_recipe(authors, size=32, flip=.3, rates=(1,2), recon_rate=1, short='loop', attn='gauss', seed=3)
    dblock = DataBlock(blocks=VideoBlock, get_items=get_video_files, splitter=RandomSplitter(seed=1), dl_type=PlaybackDL,
        item_tfms=[PlaybackRate((1,2), 16, frame_size(32), 3, 'loop', 'off_by_one', True), CropVideo(32, 'center'), FlipVideo(p=.3)],
        batch_tfms=PRPBatch((1,2), 1, 16, MotionAttention('gauss','sparse4','block',True,'blockwise',1e-6), 'exclude'))
    dls = dblock.dataloaders(video_folder, bs=4, num_workers=0)
    assert dls.recipe==want and prp_learner(dls, width=.05).recipe==get_recipe(want, width=.05, bs=4)
    of_recipe = prp_dblock(want, get_items=get_video_files).dataloaders(video_folder, bs=4, num_workers=0)
    assert of_recipe.recipe==want and of_recipe.train.new().recipe==want
    labelled = video_dblock(clip_len=8, size=32, get_items=get_video_files, get_y=lambda o: o.stem[-1]).dataloaders(video_folder, bs=4, num_workers=0)
    assert (labelled.recipe.clip_len,labelled.recipe.size)==(8,32)

def odd_run(video_folder, out, **kwargs):
    "A run that is the paper's in little, without convolutions before its heads"
    return prp_pretrain(str(video_folder), str(out), **{**dict(width=.02, size=24, recon_rate=1, head_convs=False, attn='none', rates='1,2', epochs=1, bs=4, num_workers=0, speed=''), **kwargs})

def test_a_run_is_loaded_from_its_recipe_alone(video_folder, tmp_path):
    learn = odd_run(video_folder, tmp_path/'run', preset='small', arch='r3d', heads='recon')
    again = load_run(tmp_path/'run', get_video_files(video_folder)[:4])
    assert again.recipe==learn.recipe and same(again.model.cpu(), learn.model.cpu())
    assert not again.recipe.head_convs and again.recipe.attn is None and again.recipe.heads==('recon',)

def as_before(run):
    "Give a run the `settings.json` of the time before recipes"
    fname = run/'settings.json'
    how = json.loads(fname.read_text())
    o = how['settings']
    o['encoder'],o['preset'],o['attn'] = o.pop('arch'),'paper',o['attn'] or 'none'
    for k in ('heads','rates'): o[k] = ','.join(map(str, o[k]))
    assert o.pop('head_convs')
    fname.write_text(json.dumps(how))
    return o

def test_old_settings_load_resume_and_serve_as_config(video_folder, tmp_path):
    learn = odd_run(video_folder, tmp_path/'run', head_convs=True)
    old = as_before(tmp_path/'run')
    assert old['encoder']=='c3d' and old['rates']=='1,2' and old['attn']=='none'
    assert same(load_run(tmp_path/'run', get_video_files(video_folder)[:4]).model.cpu(), learn.model.cpu())
    config = tmp_path/'old.json'
    config.write_text((tmp_path/'run/settings.json').read_text())
    resumed = odd_run(video_folder, tmp_path/'run', head_convs=True, epochs=2, resume=True)
    assert len(pd.read_csv(tmp_path/'run/history.csv'))==2 and resumed.recipe==get_recipe(learn.recipe, epochs=2)
    as_before(tmp_path/'run')
    with pytest.raises(ValueError, match='--resume needs the same: lr'): odd_run(video_folder, tmp_path/'run', head_convs=True, lr=.5, resume=True)
    other = prp_pretrain(str(video_folder), out=str(tmp_path/'other'), config=str(config), encoder='r3d', flip=.5)
    assert other.recipe==get_recipe(learn.recipe, arch='r3d', flip=.5)

def test_what_is_named_wins_over_a_config(video_folder, tmp_path):
    "Also where it is named as by default, and a recipe over the whole recipe of the file"
    config = tmp_path/'a.json'
    config.write_text(json.dumps(dict(lr=.5, width=.02, size=24, epochs=1, bs=4, num_workers=0, speed='')))
    assert prp_pretrain(str(video_folder), out=str(tmp_path/'b'), config=str(config), lr=.01).recipe.lr==paper.lr
    small_run = prp_pretrain(str(video_folder), out=str(tmp_path/'c'), config=str(config), preset='small', epochs=1, width=.02, size=24, bs=4)
    assert small_run.recipe==get_recipe(small, epochs=1, width=.02, size=24, bs=4) and small_run.dls.train.fake_l.num_workers==0

def test_old_encoders_load(video_folder, tmp_path):
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, **tiny), 'r3d', width=.05)
    fname = learn.save_encoder(tmp_path/'new.safetensors')
    card = read_card(fname)
    assert Recipe.from_dict(card)==learn.recipe
    old = {k: card[k] for k in ('arch','width','clip_len','frame_size','size','pixels','rates','recon_rate','heads','seen')}
    save_file(load_file(fname), tmp_path/'old.safetensors', metadata=dict(prp_fastai=json.dumps(old)))
    encoder,said = encoder_and_card(tmp_path/'old.safetensors')
    assert same(encoder, learn.model.encoder) and said==old and Recipe.from_dict(old)==get_recipe(paper, arch='r3d', width=.05, size=32)
    check_card(old, learn.dls)
    with pytest.raises(ValueError, match='size 32, not 24'): check_card(old, PRPDataLoaders.from_folder(video_folder, **{**tiny, 'size':24}))

def test_help_is_two_screens_with_every_default_in_groups(monkeypatch):
    monkeypatch.setenv('COLUMNS', '120')
    said = prp_pretrain.parser().format_help()
    assert len(said.splitlines())<=100 and max(map(len, said.splitlines()))<=120
    for o in options: assert f'--{o}' in said, o
    for group in ('The run','Reading',*[o.__name__ for o in recipe_parts]): assert f'\n{group}' in said
    for a in prp_pretrain.parser()._actions:
        assert a.dest in ('help','source') or '(default: ' in a.help, a.dest
        if a.dest in field_names():
            assert a.help.startswith(docments(Recipe)[a.dest].replace('%', '%%'))
            for name,r in presets.items(): assert getattr(r, a.dest)==getattr(paper, a.dest) or f'{name} {getattr(r, a.dest)}' in a.help
    assert '--encoder' in prp_finetune.parser().format_help() and all('(default: ' in a.help for a in prp_finetune.parser()._actions[2:])

def test_options_reach_the_run_as_their_type():
    args = ['sample','--rates','1,2','--attn','none','--mean-colour','true','--head-convs','false','--by-group','--eps','1e-6','--bs','4','--encoder','r3d','--preset','small']
    given = vars(prp_pretrain.parser().parse_args(args))
    assert given==dict(source='sample', rates='1,2', attn='none', mean_colour=True, head_convs=False, by_group=True, eps=1e-6, bs=4, arch='r3d', recipe='small')
    assert Recipe.from_dict(given)==get_recipe(small, rates=(1,2), attn=None, mean_colour=True, head_convs=False, eps=1e-6, bs=4, arch='r3d')

def test_no_function_takes_more_than_fifteen_parameters_of_its_own():
    def own(f): return inspect.unwrap(getattr(f, '__func__', f)).__code__
    for f in (prp_dblock, PRPDataLoaders.from_files, video_dblock, prp_learner, video_learner, prp_pretrain, load_run, get_recipe, take_recipe):
        assert own(f).co_argcount+own(f).co_kwonlyargcount<=15, f
