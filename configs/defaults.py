"""Every key, its default and what it means.

Defaults are the authors' release on COCO but for MODEL.OT_STOP, DATALOADER.RESHUFFLE and SOLVER.NONFINITE, whose
comments say what the release does; "paper:" names the paper's value where it differs. docs/fidelity.md lists the
differences. A YAML in this folder holds only what differs from these.
"""

from yacs.config import CfgNode

_C = CfgNode()

_C.DEVICE = "auto"  # auto: the GPU if there is one; else cpu, cuda, cuda:1, ...
# torch.compile of image tower and ladder: off, on, or graphs, with CUDA graphs on a GPU; see model/compiled.py
_C.COMPILE = "off"
_C.OUTPUT_DIR = "runs/ram"  # each run gets a folder of its own in here
_C.WANDB = False  # log to Weights & Biases; offline where nobody is logged in
_C.WANDB_PROJ = "OVML-RAM"

_C.MODEL = CfgNode()
# ram; zero-shot: CLIP as it is, for test.py; others with configs/methods/METHOD.yml, see docs/methods.md.
_C.MODEL.METHOD = "ram"
_C.MODEL.BACKBONE = "ViT-B/16"  # OpenAI's name, or any plain ViT or ResNet of open_clip; RAM needs a ViT
_C.MODEL.CLIP_WEIGHTS = "openai"  # a tag of open_clip, a local file, or "random" (tests)
_C.MODEL.CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # pixels in [0, 1]; what the CLIP was trained with,
_C.MODEL.CLIP_STD = (0.26862954, 0.26130258, 0.27577711)  # used by the zero-shot row of the results
_C.MODEL.POSITIONS = "bilinear"  # how positional embeddings are resized to INPUT.SIZE_*: bilinear or bicubic
# Regions of a ViT for methods on its frozen features: values, patches behind a last block that sees each alone; or saa,
# the sums of embeddings and self-aware attention that RAM's teacher has. Zero-shot CLIP and methods other than RAM.
_C.MODEL.REGIONS = "values"
_C.MODEL.TEMPLATE = "A photo of a {}."  # becomes the text of a label
# Blocks with TSS and visual prompts: last n, first n, all, none, or their 0-based indices; (-1,) and (n, -1) of the
# release are none and the first n.
_C.MODEL.DEPTH_VISION = ("last", 3)
# Text blocks with label prompts; same notation. Release on NUS-WIDE: the last six; paper: the last three.
_C.MODEL.DEPTH_TEXT = ("last", 3)
_C.MODEL.SAA_LAYER = ("all",)  # blocks whose SAA enters the student's ladder; same notation; paper: the last three
# What the student's ladder starts from: embeddings of the patches, or block, what enters its first block; paper: block.
_C.MODEL.LADDER_START = "embeddings"
_C.MODEL.TSS = True  # text-guided spatial selection in the ladder; False: the row "w/o TSS" of Table 11
_C.MODEL.TEXT_CTX = 4  # label prompts per block; 0: none
# Table 7: deep; coop, a learned context in place of these and of the template; dualcoop, a positive and a negative one.
_C.MODEL.LABEL_PROMPTING = "deep"
_C.MODEL.VISION_ADAPT = 8  # visual prompts per block; 0: none; paper: not stated
_C.MODEL.LADDER_FACTOR = 1.0  # of the student: factor of SAA + TSS in Eq. (5); paper: 0.5
_C.MODEL.KERNEL_SIZE = 3  # of the convolution that mixes the two masks of TSS
# Initial local temperature, Eq. (14); auto: 0.1 / seen labels. Paper: one for both branches, value not stated.
_C.MODEL.TEMPERATURE = 2e-3
_C.MODEL.TEMPERATURE_GLOBAL = 1e-2  # initial global temperature
_C.MODEL.LPD_TEMPERATURE = 0.1  # Eq. (8); paper: not legible
_C.MODEL.TKT_SHARPNESS = 20.0  # scale of the teacher's softmax over regions, Eq. (9); paper: not stated
_C.MODEL.MATCHER = "kcot"  # Tables 5 and 6: kcot, ot, ot+lpd, ot+tkt, average, reweight, bipartite; unbalanced: POT's
_C.MODEL.REWEIGHT_SHARPNESS = 20.0  # of the matcher reweight; paper: not stated
# sinkhorn; native: the same on CPUs by a kernel that their C compiler makes; triton: the same in one kernel, with cost
# and region weights, on CUDA devices; or pot: the same problems by POT's batched solver in float64, which stops by a
# rule of its own.
_C.MODEL.OT_SOLVER = "sinkhorn"
_C.MODEL.OT_RELAX = 1.0  # of the matcher unbalanced: price of leaving the region weights
_C.MODEL.OT_REG = 0.1  # lambda 1, Eq. (6)
_C.MODEL.OT_REGSC = 0.05  # lambda 2; paper: 0.01 for remote sensing and pedestrians
_C.MODEL.OT_ITER = 100  # at most
_C.MODEL.OT_TOL = 1e-3  # stop when the row scalings change less, mean over regions; 0, paper: always OT_ITER
_C.MODEL.OT_STOP = "image"  # image: each stops by itself; release: batch, all stop together
# Table 10: MMC, MMC-IMAGE (without batch), RANKING, ASL as in the release, ASL-PLAIN as in Eq. (19); RANKING-MEAN:
# each image's ranking loss over its number of violated pairs, as in BiAM and MKT.
_C.MODEL.LOSS_TYPE = "MMC"
_C.MODEL.LOSS_WEIGHT = 1.0  # of each of the two losses; paper: 0.5, their mean
_C.MODEL.USE_EMA = True  # also average what is trained, and evaluate both; paper: not mentioned
_C.MODEL.EMA_DECAY = 0.9997  # per step; auto: the average spans a tenth of the steps of the training
_C.MODEL.EMA_RESET = True  # start the average anew from the current weights in every epoch, as the release

_C.MODEL.PEAKS = CfgNode()  # of the method ram-peaks; not from the paper
_C.MODEL.PEAKS.SHARPNESS = 30.0  # of the soft maximum over regions, on cosines
_C.MODEL.PEAKS.TEMPERATURE = 0.1  # divides it; as the local one divides a mean over regions, where that is auto

_C.MODEL.ML_DECODER = CfgNode()  # METHOD ml-decoder; its loss is ASL, summed: SOLVER.GAMMA_NEG, GAMMA_POS, CLIP
_C.MODEL.ML_DECODER.WIDTH = 768  # of the decoder, a multiple of the heads
_C.MODEL.ML_DECODER.HEADS = 8
_C.MODEL.ML_DECODER.HIDDEN = 2048  # units of the feed-forward part
_C.MODEL.ML_DECODER.DROPOUT = 0.1

_C.MODEL.BIAM = CfgNode()  # of the method biam
_C.MODEL.BIAM.CHANNELS = 256  # of both attentions
_C.MODEL.BIAM.HEADS = 8  # of the attention between regions; the official code's default is 4
_C.MODEL.BIAM.TOP_K = 6  # regions that the score of a label is the mean of

_C.MODEL.MKT = CfgNode()  # of the method mkt
_C.MODEL.MKT.STAGE = 1  # 1 trains the image tower's end, 2 the words of the template, with SOLVER.INIT a run of 1
_C.MODEL.MKT.BLOCKS = 2  # last blocks of the image tower that stage 1 trains
_C.MODEL.MKT.TOP_K = 16  # regions that the local score of a label is the mean of
_C.MODEL.MKT.TEMPLATE = "There is a {} in the scene"  # becomes the text of a label, in the place of MODEL.TEMPLATE
_C.MODEL.MKT.DISTILLATION = 1.0  # weight of the distance to the frozen CLIP in stage 1
_C.MODEL.MKT.LAYER_DECAY = 0.65  # factor of the rate from a block to the one before it in stage 1

_C.MODEL.ZERO_SHOT = CfgNode()
# Of MODEL.METHOD zero-shot: global, local (soft maximum over regions) or both. The row beside other methods is global.
_C.MODEL.ZERO_SHOT.SCORE = "global"

_C.MODEL.TAGCLIP = CfgNode()
_C.MODEL.TAGCLIP.TEMPLATES = "official"  # 85: ImageNet's 80 and five of scenes; or one, MODEL.TEMPLATE
_C.MODEL.TAGCLIP.BACKGROUND = ()  # words beside the candidate labels, but for those that are candidates
_C.MODEL.TAGCLIP.BLOCKS = 3  # in front of the last one, whose attention refines; official on COCO-Stuff: all 11
_C.MODEL.TAGCLIP.VOTES = 1 / 3  # of all blocks, on each pair of patches
_C.MODEL.TAGCLIP.THRESHOLD = 0.5  # of the refined map's range, to look at a label again; official on COCO-Stuff: 0.1

_C.MODEL.COMC = CfgNode()
_C.MODEL.COMC.SENTENCES = 40000  # with one to five labels, beside 89 for each single label
_C.MODEL.COMC.BATCH = 512  # sentences of a training step
_C.MODEL.COMC.NOISE = 0.1  # standard deviation, on each coordinate of a sentence's normalised feature
_C.MODEL.COMC.MIX = 0.3  # weight of an image feature's projection into the space of texts

_C.MODEL.CONTEXT = CfgNode()  # learned contexts: LABEL_PROMPTING coop and dualcoop, METHOD coop, dualcoop and trm-ml
_C.MODEL.CONTEXT.COUNT = 4  # vectors of each; paper, Table 7: not stated; CoOp 16, DualCoOp 64 where labels are unseen
# Such as "a photo of a": a context starts as these, a vector for each token whatever COUNT is; a negative one never
# does. "": vectors drawn from N(0, 0.02^2), as CoOp and DualCoOp do; paper, Table 7: not stated.
_C.MODEL.CONTEXT.WORDS = ""
# Of trm-ml and dualcoop-partial, what negative contexts stand in front of: names, as in the earlier code of TRM-ML's
# authors; or nothing, and then they begin with WORDS too. Its paper: not stated.
_C.MODEL.CONTEXT.NEGATIVE = "names"
_C.MODEL.CONTEXT.RECOMPUTE = False  # gradient checkpointing of the text tower: less memory with many labels, more time

_C.MODEL.DUALCOOP = CfgNode()
_C.MODEL.DUALCOOP.SHARPNESS = 20.0  # factor of the cosines, also in the softmax over regions
_C.MODEL.DUALCOOP.SCALE = 5.0  # factor of what is pooled over regions
# Of METHOD dualcoop-partial, where SHARPNESS and SCALE are what is learned from: reweight, or average, without shares.
_C.MODEL.DUALCOOP.POOLING = "reweight"
# Seen labels of a training step, drawn at random; 0: all; official, NUS-WIDE: 100.
_C.MODEL.DUALCOOP.LABELS_PER_STEP = 0

_C.MODEL.TRM = CfgNode()  # METHOD trm-ml, which takes MODEL.CONTEXT too; "not stated": by its paper
_C.MODEL.TRM.HIDDEN = 2048  # units of the decoder's feed-forward part; not stated, but the count of parameters fits
_C.MODEL.TRM.DROPOUT = 0.1  # of the decoder; not stated; SADCL, the authors' earlier code, has it
_C.MODEL.TRM.ATTENTION = "softmax"  # weights of the cross-attention: softmax, or the sigmoid of Eq. (2); not stated
_C.MODEL.TRM.SELF_ATTENTION = True  # of the queries; not stated, but the count of parameters fits
_C.MODEL.TRM.QUERIES = "random"  # of labels, at the beginning: random, or texts, the features of their texts
_C.MODEL.TRM.SCALE = 49.9  # 1 / tau of Eq. (1) at the beginning; not stated; exp(3.91) in the authors' earlier code
_C.MODEL.TRM.REGION_WEIGHT = 1.0  # alpha
_C.MODEL.TRM.KD_WEIGHT = 0.05  # beta; 0: no distillation
_C.MODEL.TRM.KD_TEMPERATURE = 4.0  # of Eq. (6); not stated; that of the authors' earlier code
_C.MODEL.TRM.KD_REDUCTION = "mean"  # over the images; not stated; sum in the authors' earlier code
_C.MODEL.TRM.CONTRAST_WEIGHT = 0.01  # gamma; 0: no contrastive loss
_C.MODEL.TRM.CONTRAST_TEMPERATURE = 0.07  # tau of Eq. (13); not stated
_C.MODEL.TRM.QUEUE = 64  # vectors in the memory bank of each label; not stated
_C.MODEL.TRM.TOP_K = 3  # positions of an image that enter it; not stated
_C.MODEL.TRM.MOMENTUM = 0.99  # eta, of the thresholds; not stated
_C.MODEL.TRM.PSEUDO_LABELS = "both"  # Table 6: by prototypes that are visual, text, or both; or none, as in stage 1
_C.MODEL.TRM.PSEUDO_START = 5  # epochs before them, and of a first stage in the same run; not stated
# What unknown labels without pseudo-labels are: ignored; absent until their label has some, for single positive labels;
# always-absent, where a pseudo-label can only be positive. Not stated.
_C.MODEL.TRM.UNKNOWN = "ignored"
# Of the run of stage 1 that SOLVER.INIT names: all that it trained is gone on with, not only its texts; not stated.
_C.MODEL.TRM.CONTINUED = False

_C.INPUT = CfgNode()
_C.INPUT.SIZE_TRAIN = (224, 224)  # height, width
_C.INPUT.SIZE_TEST = (224, 224)
_C.INPUT.PIXEL_MEAN = (0.5, 0.5, 0.5)  # what RAM sees, student and teacher; paper: not stated
_C.INPUT.PIXEL_STD = (0.5, 0.5, 0.5)
_C.INPUT.EXIF_ROTATION = False  # turn photographs upright; the release does not
_C.INPUT.MAX_PIXELS = 178_956_970  # of an image file, refused before it is decoded; Pillow takes no more than these
_C.INPUT.AUGMENT = True  # False: training images are made as test images are, at SIZE_TRAIN; no key below is read
_C.INPUT.PROB = 0.5  # of a horizontal flip
_C.INPUT.RE_PROB = 0.5  # of random erasing, with noise
_C.INPUT.PADDING = 10  # pixels added on each side before the random crop
_C.INPUT.AUG_PROB = 0.2  # of each of: crop, blur, contrast, affine; "paper: no" below: not among what it lists
_C.INPUT.CROP = 0.1  # cut off each side, at most this fraction
_C.INPUT.BLUR = 0.2  # largest sigma in pixels; up to 0.25 no 8-bit pixel changes
_C.INPUT.CONTRAST = (0.75, 1.25)  # factor about mid-grey; paper: no
_C.INPUT.AFFINE = 0.1  # scales of x and y and shifts, at most this fraction; paper: no
_C.INPUT.ROTATION = 10.0  # with it, at most so many degrees to either side; paper: no
_C.INPUT.NOISE = 0.015  # largest standard deviation of Gaussian pixel noise, of the full range; paper: no
_C.INPUT.MULTIPLY = (0.9, 1.1)  # brightness factor; paper: no
_C.INPUT.PER_CHANNEL = 0.2  # probability that noise, and likewise brightness, is drawn for each channel; paper: no

_C.DATASETS = CfgNode()
_C.DATASETS.NAMES = "COCO_ZS"  # for logs and tables
_C.DATASETS.ROOT_DIR = ""  # what the paths below are relative to
_C.DATASETS.IMAGE_DIR = ""  # where image files are
# Annotation file or folder in any format of docs/data.md, or drawn scenes: shapes:train, emoji:train[:900], ...
_C.DATASETS.TRAIN = "records/train.json"
_C.DATASETS.VAL = ""  # same, of all labels; "": none, or cut from TRAIN
_C.DATASETS.TEST = "records/test.json"  # of all labels (GZSL); "": cut from TRAIN
_C.DATASETS.TEST_ZSL = ""  # of unseen labels; "": images of TEST with an unseen label
# Of the images of TRAIN, for validation where VAL is ""; auto: 0.1 where that is 20 images or more; release: none.
_C.DATASETS.VAL_FRACTION = 0.0
_C.DATASETS.TEST_FRACTION = 0.0  # of the images of TRAIN, for testing where TEST is ""
_C.DATASETS.SEEN = ()  # labels, or one "FILE.txt" with a label a line; (): the labels that are not UNSEEN, or CHOOSE
_C.DATASETS.UNSEEN = ()  # same; training images that have one are left out
_C.DATASETS.CHOOSE = "files"  # where SEEN and UNSEEN are (): files, what the classes of TRAIN and TEST say; frequent,
# seen are the labels that most training images have; random, by SPLIT_SEED; none, all labels are seen
_C.DATASETS.UNSEEN_FRACTION = 0.3  # of the labels, with CHOOSE frequent or random
_C.DATASETS.SPLIT_SEED = 0  # of the random cuts and of CHOOSE random
_C.DATASETS.SEPARATOR = "auto"  # between the labels of a cell (CSV) or a line (text files)
# What an empty cell of a table with a column per label says: absent, or unknown, as -1 does.
_C.DATASETS.EMPTY_CELL = "absent"
_C.DATASETS.UNKNOWN = "keep"  # labels that are not known of an image: keep, for methods that can train so; or absent
# Share of the labels of training images, present and absent ones, that training is told, drawn at random; the others
# are not known, or absent with UNKNOWN absent. single: one present label of each image, and nothing else.
_C.DATASETS.KNOWN = 1.0
_C.DATASETS.KNOWN_SEED = 0  # of what is drawn for it
_C.DATASETS.SKIP_MISSING = False  # images of the lists that are not there are left out, and counted; False: an error
_C.DATASETS.MERGE_CASE = False  # labels that differ in case only are one, spelt as in most images; False: an error
_C.DATASETS.LABELS = ""  # JSON with words, texts and synonyms of labels, such as configs/labels/rap.json
_C.DATASETS.PACK = ""  # folder of images that tools/pack_images.py has decoded and resized; changes no result
_C.DATASETS.SUBSET = 0  # use only the first so many images of every list; 0: all

_C.DATALOADER = CfgNode()
_C.DATALOADER.NUM_WORKERS = 8
_C.DATALOADER.RESHUFFLE = True  # new batches in every epoch; release: False, shuffled once
# Where training images are augmented: workers, at full size, as in the release; or device, in whole batches and after
# the resize, where workers cannot keep up with it.
_C.DATALOADER.AUGMENT_ON = "workers"
# Image files that are cut short are used as far as they go, and named; False: they cannot be read.
_C.DATALOADER.READ_TRUNCATED = True
# Compute what no training changes of an image once, before the first epoch, and keep it in memory, for methods on a
# frozen image tower; INPUT.AUGMENT has to be False. Changes results by rounding alone.
_C.DATALOADER.CACHE = False
_C.DATALOADER.SKIP_BROKEN = False  # evaluation goes on without images that cannot be read

_C.SOLVER = CfgNode()
_C.SOLVER.BASE_LR = 5e-5  # AdamW: temperatures
_C.SOLVER.ADAPTER_FACTOR = 0.1  # AdamW: adapters learn at BASE_LR times this; paper: 5e-6 natural images, 5e-5 others
_C.SOLVER.BASE_LR_SGD = 1e-3  # SGD: prompts of both towers
_C.SOLVER.WEIGHT_DECAY = 1e-4
_C.SOLVER.WEIGHT_DECAY_SGD = 1e-4
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.IMS_PER_BATCH = 32
_C.SOLVER.INIT = ""  # run or checkpoint whose trained weights a new training begins with
_C.SOLVER.MAX_EPOCHS = 6  # may be raised on resuming: a finished run goes on
# cosine, which counts from the beginning; constant-cosine, linear-cosine, stairs-cosine, one-cycle: docs/methods.md.
_C.SOLVER.SCHEDULE = "cosine"
_C.SOLVER.LR_PERIOD = "epoch"  # epoch: the rate is constant within one; step: it changes in every step
_C.SOLVER.WARMUP_EPOCHS = 3.0  # up to but without this epoch; may be a fraction; 0: none
# Rate where the warm-up starts and where the cosine ends, of every group; with linear-cosine, stairs-cosine and
# one-cycle of one that learns at BASE_LR, other groups have theirs in proportion.
_C.SOLVER.WARMUP_LR = 5e-7
_C.SOLVER.MIN_LR = 1e-7
_C.SOLVER.SCHEDULER_MAX_EPOCHS = 60  # length of the cosine; auto, paper: MAX_EPOCHS
_C.SOLVER.EVAL_PERIOD = 3  # epochs between evaluations; the last epoch is always evaluated
_C.SOLVER.SELECT = "last"  # checkpoint that is tested: last, or best (validation mAP of GZSL; needs DATASETS.VAL)
# End when validation mAP of GZSL has not risen for so many epochs; 0: never. Needs validation images.
_C.SOLVER.PATIENCE = 0
_C.SOLVER.LOG_PERIOD = 500  # steps between log lines
_C.SOLVER.CHECKPOINT_PERIOD = 0  # steps between checkpoints within an epoch; 0: only at its end
_C.SOLVER.SEED = 42
_C.SOLVER.AMP = "fp16"  # fp16 (with loss scaling; on GPUs), bf16 or off
# A batch whose loss is NaN or infinite: skip it and say so, or stop. Release: its loss scaling skips it, in silence.
_C.SOLVER.NONFINITE = "skip"
_C.SOLVER.GAMMA_NEG = 2.0  # ASL, Eq. (19)
_C.SOLVER.GAMMA_POS = 0.0
_C.SOLVER.CLIP = 0.0

_C.TEST = CfgNode()
_C.TEST.WEIGHT = ""  # checkpoint; "": that of the newest run in OUTPUT_DIR
_C.TEST.IMS_PER_BATCH = 512
_C.TEST.SPLIT = "test"  # test, or val: for everything that is still being chosen
# What is evaluated, in training too: ZSL, GZSL, or (), both. For methods that cannot answer every list of labels, such
# as the matcher bipartite, which needs a region for each.
_C.TEST.PROTOCOLS = ()
_C.TEST.SAVE_SCORES = False  # also write scores, targets, names and images as .npz
_C.TEST.AMP = "off"  # off, fp16 (on GPUs) or bf16
