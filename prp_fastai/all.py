"Everything, for interactive use: `from prp_fastai.all import *`"
