"""The report's texts in English and Chinese."""

LANGUAGES = ("en", "zh")

# A text's name → (English, Chinese).
TEXTS = {
    "report": ("Report", "报告"),
    "runs": ("{} runs side by side", "{} 次训练的对比"),
    "missing": ("What is missing", "缺少的内容"),
    "overview": ("Overview", "概览"),
    "configuration": ("Configuration", "配置"),
    "environment": ("Environment", "运行环境"),
    "all_settings": ("All settings", "全部设置"),
    "differences": ("What differs", "设置的差别"),
    "no_differences": ("The runs have the same settings.", "这些训练的设置完全相同。"),
    "results": ("Results", "结果"),
    "run": ("run", "训练"),
    "model": ("network", "网络"),
    "dataset": ("data", "数据集"),
    "num_params": ("parameters", "参数量"),
    "epochs": ("epochs", "轮数"),
    "seconds": ("seconds of training", "训练秒数"),
    "test_accuracy": ("test accuracy", "测试准确率"),
    "test_loss": ("test loss", "测试损失"),
    "validation_accuracy": ("validation accuracy", "验证准确率"),
    "train_loss": ("training loss", "训练损失"),
    "learning": ("Learning", "学习过程"),
    "loss_curve": ("Loss after each epoch", "每轮后的损失"),
    "accuracy_curve": ("Accuracy after each epoch", "每轮后的准确率"),
    "rate_curve": ("Learning rate", "学习率"),
    "speed_curve": ("Images per second", "每秒图像数"),
    "wait_curve": ("Share of the time spent waiting for data", "等待数据的时间占比"),
    "loss": ("loss", "损失"),
    "accuracy": ("accuracy", "准确率"),
    "epoch": ("epoch", "轮"),
    "train": ("training", "训练"),
    "validation": ("validation", "验证"),
    "hint_curves": (
        "Training numbers are averages over an epoch, with dropout and augmentation; validation "
        "numbers are taken after it. Point at a curve for its values.",
        "训练曲线是一轮内的平均值，含随机失活和数据增强；验证曲线在一轮结束后计算。把鼠标移到曲线上可查看数值。",
    ),
    "as_table": ("The numbers as a table", "数值表"),
    "first_last": (
        "{} from {} in epoch {} to {} in epoch {}",
        "{0}：从第 {2} 轮的 {1} 到第 {4} 轮的 {3}",
    ),
    "classes": ("Mistakes", "错误分析"),
    "confusion": ("Confusion matrix", "混淆矩阵"),
    "confusion_alt": (
        "{} of {} test images are right. Most frequent mistake: {}.",
        "{1} 张测试图像中 {0} 张正确。最常见的错误：{2}。",
    ),
    "none": ("none", "无"),
    "taken_for": ("{} taken for {} ({} times)", "{} 被认作 {}（{} 次）"),
    "label": ("label", "标签"),
    "prediction": ("prediction", "预测"),
    "scores": ("Precision, recall and F1 of each class", "各类的精确率、召回率和 F1"),
    "scores_alt": ("Lowest F1: class {} with {}.", "F1 最低的类：{}，{}。"),
    "class": ("class", "类别"),
    "precision": ("precision", "精确率"),
    "recall": ("recall", "召回率"),
    "f1": ("F1", "F1"),
    "score": ("score", "得分"),
    "support": ("images", "图像数"),
    "calibration": ("Calibration", "校准曲线"),
    "calibration_alt": (
        "Expected calibration error {}. On the dashed line, confidence equals accuracy.",
        "期望校准误差 {}。虚线表示置信度与准确率相等。",
    ),
    "calibration_note": (
        "Above the dashed line the network is right more often than it says, below it less often. "
        "Expected calibration error (Guo et al. 2017, {} bins): {}.",
        "高于虚线表示网络比自称的更准，低于虚线表示过于自信。"
        "期望校准误差（Guo 等 2017，{} 个区间）：{}。",
    ),
    "confidence": ("confidence", "置信度"),
    "images_share": ("images", "图像占比"),
    "mistakes": ("The most confident mistakes", "最自信的错误"),
    "mistakes_alt": ("The first: {}.", "第一张：{}。"),
    "mistake": ("label {}, taken for {} with {}", "标签 {}，被认作 {}，置信度 {}"),
    "no_mistakes": ("No test image is wrong.", "没有分类错误的测试图像。"),
    "wrong_label": ("label is wrong: {}", "标签有误：应为 {}"),
    "doubtful_label": ("label is doubtful", "标签存疑"),
    "wrong_labels_note": (
        "Framed: one of the 15 labels of MNIST's test images that most people reject, with the "
        "label that they choose instead, if they agree on one. Source: Northcutt, Athalye and "
        "Mueller 2021, arXiv:2103.14749, labelerrors.com.",
        "加框：MNIST 测试集中多数人不认可的 15 个标签之一；若多数人意见一致，则注明他们选择的标签。"
        "来源：Northcutt、Athalye、Mueller 2021，"
        "arXiv:2103.14749，labelerrors.com。",
    ),
    "inside": ("Inside the network", "网络内部"),
    "filters": ("First layer's weights: {}", "第一层的权重：{}"),
    "filters_alt": (
        "{} of {} filters; orange is above zero, blue below.",
        "{1} 个滤波器中的 {0} 个；橙色为正，蓝色为负。",
    ),
    "activations": ("One test image through the layers", "一张测试图像经过各层"),
    "activations_alt": (
        "The image of class {}, then the first channels of each layer; orange is above zero, "
        "blue below.",
        "类别 {} 的图像，随后是每层的前几个通道；橙色为正，蓝色为负。",
    ),
    "image": ("image", "图像"),
    "gradients": ("Gradients", "梯度"),
    "norms": ("Size of weights, gradients and updates", "权重、梯度和更新的大小"),
    "norms_alt": (
        "The largest ratio of update to weights: {} in {}.",
        "更新与权重之比最大：{}（{}）。",
    ),
    "norms_note": (
        "Euclidean norms by layer, of the first {} training images. The update is that of one step "
        "with learning rate {}; about a thousandth of the weights is usual.",
        "各层的欧几里得范数，取前 {} 张训练图像。"
        "更新量按学习率 {} 走一步计算；通常约为权重的千分之一。",
    ),
    "weights": ("weights", "权重"),
    "gradient": ("gradient", "梯度"),
    "update": ("update", "更新"),
    "update_ratio": ("update / weights", "更新 / 权重"),
    "norm": ("norm", "范数"),
    "layer": ("layer", "层"),
    "ledger": ("The gradient ledger: by hand against autodiff", "梯度账本：手工推导与自动微分"),
    "ledger_alt": (
        "The largest relative error: {} in {} ({}).",
        "最大相对误差：{}（{}，{}）。",
    ),
    "ledger_note": (
        "Every array's gradient on {} training images with the run's weights, derived by hand and "
        "by autodiff of the plain network. The error is the largest difference relative to the "
        "array's largest number; allowed are {}.",
        "用本次训练的权重在 {} 张训练图像上计算每个数组的梯度：手工推导与对普通网络的自动微分。"
        "误差是最大差值与数组最大值之比；允许值为 {}。",
    ),
    "kernels_note": (
        " Kernels, faster forms of some layers, agree with the derived passes to {} in float64.",
        "加速核（部分层的更快形式）在 float64 下与推导结果的相对误差不超过 {}。",
    ),
    "ledger_errors": ("Relative error of each gradient by hand", "手工推导梯度的相对误差"),
    "relative_error": ("relative error", "相对误差"),
    "largest_manual": ("largest, by hand", "最大元素（手工）"),
    "largest_automatic": ("by autodiff", "自动微分"),
    "agrees": ("agrees", "一致"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "machine": ("Time", "耗时"),
    "unfinished": (
        "The run is not finished: this is how far it had come after step {}.",
        "训练尚未完成：以下是第 {} 步时的状态。",
    ),
    "untrained": ("no epoch has ended yet", "还没有完成一轮"),
    "no_data": ("the data set is not at hand: {}", "找不到数据集：{}"),
    "other_data": (
        "the data set at hand has other images than the run's",
        "现有的数据集与训练时的图像不同",
    ),
    "other_form": (
        "the data set at hand has other classes or image sizes than the run's",
        "现有的数据集与训练时的类别或图像大小不同",
    ),
    "no_test": ("the evaluation: {}", "评估：{}"),
    "no_part": ("{}: {}", "{}：{}"),
    "regression": (
        "a regression has no classes to be wrong about",
        "回归任务没有类别可供分析",
    ),
    "large_network": (
        "the ledger's float64 and bfloat16: the network has more than {} parameters",
        "账本的 float64 和 bfloat16：网络参数超过 {} 个",
    ),
    "crops": (
        "The run was tested on ten crops of each image; here it sees the middle one.",
        "训练结束时的测试使用每张图像的十个裁剪；此处只用中央裁剪。",
    ),
    "made_by": (
        "Made by jaxnets {}. This file loads nothing.",
        "由 jaxnets {} 生成。本文件不加载任何外部内容。",
    ),
}  # fmt: skip


class Words:
    """The texts in one language.

    >>> Words("zh")("taken_for", 4, 9, 2)
    '4 被认作 9（2 次）'
    """

    def __init__(self, language: str):
        self.language, self._index = language, LANGUAGES.index(language)

    def __call__(self, name: str, *values: object) -> str:
        text = TEXTS[name][self._index]
        return text.format(*values) if values else text
