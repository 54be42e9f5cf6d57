"""The bugs to find: each a wrong backward pass of `gradcheck/mutants.py` under a neutral name."""

from typing import NamedTuple


class Bug(NamedTuple):
    """A wrong backward pass, and what the exercise says about it."""

    mutant: str  # Its name in gradcheck/mutants.py, which no student sees.
    level: int  # 1 easy, 3 hard.
    minutes: int
    question: str
    hint: str


BUGS = {
    "bug1": Bug(
        "dense_divides_by_batch",
        1,
        5,
        "Loss functions are averaged over a batch. So why does the check refuse an average here?",
        "Search `training/step.py` for 1/B: `make_train_step` divides by the batch already.",
    ),
    "bug2": Bug(
        "dense_bias_as_mean",
        1,
        5,
        "With B = 1 the check of this layer would say ok. Why?",
        "Write out z_bk for two examples and differentiate z_1k + z_2k with respect to b_k.",
    ),
    "bug3": Bug(
        "dense_reshaped_kernel",
        1,
        5,
        "The shapes are right for every D and K. Which element of the kernel stands at row 0,"
        " column 1 of `kernel.reshape(K, D)`?",
        "Try a 2x3 kernel that holds the numbers 0 to 5.",
    ),
    "bug4": Bug(
        "dense_updates_too_early",
        2,
        10,
        "Both formulas are right, and yet dX is not. At which W must dX be taken?",
        "All gradients belong to one point: the parameters of the forward pass.",
    ),
    "bug5": Bug(
        "ones_row_without_gradient",
        1,
        5,
        "How does the check notice this without a single number? And which factor of the "
        "product is constant?",
        "Compare the shapes of [X 1] and X, of [W; b] and its gradient.",
    ),
    "bug6": Bug(
        "ones_row_first",
        1,
        5,
        "The shape is right, and so is every number. What is wrong?",
        "On which side of X do the ones stand?",
    ),
    "bug7": Bug(
        "flatten_in_wrong_order",
        2,
        10,
        "For images of one channel this passes. Why?",
        "Where does element (i, j, c) of an image [H, W, C] land in its row?",
    ),
    "bug8": Bug(
        "sigmoid_of_y",
        1,
        5,
        "The formula in the docstring is right. What is in the cache?",
        "Look at what `sigmoid_forward` returns as its cache.",
    ),
    "bug9": Bug(
        "sigmoid_forgets_chain",
        1,
        5,
        "When would this layer's gradient be right all the same?",
        "What does the chain rule do with what comes from above?",
    ),
    "bug10": Bug(
        "relu_mask_from_gradient",
        1,
        5,
        "What does the mask depend on here, and what must it depend on?",
        "Take x = -1, dy = 1, and then x = 1, dy = -1.",
    ),
    "bug11": Bug(
        "relu_lets_all_through",
        1,
        5,
        "Which gradient does this layer stop?",
        "Can y = max(x, 0) be negative?",
    ),
    "bug12": Bug(
        "relu_passes_at_zero",
        2,
        10,
        "Central differences do not notice it and autodiff does. Why does it matter, if 0 is "
        "only one number?",
        "Think of x = 0 exactly: padding, black pixels times a kernel, biases that start at 0.",
    ),
    "bug13": Bug(
        "softmax_elementwise",
        2,
        10,
        "Two classes, scores (0, 0): how does p_1 change if x_2 grows?",
        "The sum under the fraction contains every score.",
    ),
    "bug14": Bug(
        "softmax_sums_over_batch",
        1,
        5,
        "Over which axis do the probabilities sum to 1?",
        "The shapes fit for every B and K, so nothing complains. Try B = 1.",
    ),
    "bug15": Bug(
        "cross_entropy_without_minus",
        1,
        5,
        "What happens to the loss when a network is trained with it?",
        "Write down the loss before differentiating it.",
    ),
    "bug16": Bug(
        "cross_entropy_of_logits",
        2,
        10,
        "p - y is a true formula. Of what is it the gradient?",
        "What comes next in the backward pass, `softmax_backward`, would be applied to it.",
    ),
    "bug17": Bug(
        "cross_entropy_forgets_offset",
        2,
        10,
        "For probabilities above 0.1 the check would say ok. On which input does it find the "
        "mistake?",
        "The forward pass has log(p + 1e-12). Put p = 1e-12.",
    ),
    "bug18": Bug(
        "softmax_cross_entropy_sign",
        1,
        5,
        "Which of the two, p - y or y - p, does the update rule W - η dW expect?",
        "Raise the score of the true class a little: must the loss rise?",
    ),
    "bug19": Bug(
        "softmax_cross_entropy_is_the_end",
        1,
        5,
        "d_losses looks superfluous. What does it carry in `manual_loss_and_grad`?",
        "A padded row has mask 0.",
    ),
    "bug20": Bug(
        "squared_error_forgets_two",
        1,
        5,
        "Which of the lecture's two conventions of the squared error is this the gradient of?",
        "Where is the 1/2 in `squared_error_forward`?",
    ),
    "bug21": Bug(
        "squared_error_over_batch",
        1,
        5,
        "For B = K it passes. Over what is the mean of one example's loss?",
        "`losses [B]`: one number an example. The batch is `training/step.py`'s.",
    ),
    "bug22": Bug(
        "half_squared_error_keeps_two",
        1,
        5,
        "Training with it works. What has secretly changed?",
        "Compare with a learning rate twice as large.",
    ),
    "bug23": Bug(
        "conv_unflipped_kernel",
        3,
        15,
        "For kernels that are symmetric it passes. Take one dimension, a kernel (w0, w1) and "
        "stride 1: which outputs does x_5 reach, and through which weights?",
        "The comment says it: how often does the kernel get flipped in all?",
    ),
    "bug24": Bug(
        "conv_padding_off_by_one",
        3,
        15,
        "For 3x3 kernels with stride 1 it passes. Which kernels betray it?",
        "SAME adds k - 1 rows in all. What if that is odd?",
    ),
    "bug25": Bug(
        "conv_ignores_stride",
        3,
        15,
        "With stride 1 it is right. Which rows of x does the kernel's row a visit, with stride 2?",
        "`window_slices` takes the strides as an argument.",
    ),
    "bug26": Bug(
        "conv_forgets_groups",
        3,
        15,
        "How many of the filters have a right gradient?",
        "Output block g sees input block g.",
    ),
    "bug27": Bug(
        "conv_bias_as_mean",
        2,
        10,
        "By what factor is the bias' gradient too small on an image of 28x28?",
        "Write z at two places of one image and differentiate their sum with respect to b_k.",
    ),
    "bug28": Bug(
        "max_pool_counts_ties",
        2,
        15,
        "Sum dx over a window whose four elements are equal. What should it be?",
        "One output cannot have more gradient to give than it has received.",
    ),
    "bug29": Bug(
        "max_pool_tie_to_last",
        2,
        10,
        "This is a subgradient as good as any. Why does the check still refuse it?",
        "XLA, and with it autodiff, has a convention.",
    ),
    "bug30": Bug(
        "max_pool_averages_overlaps",
        3,
        15,
        "For 2x2 windows with stride 2 it passes. For which windows not?",
        "Write the loss as a function of y_1 and y_2 where both are the same x.",
    ),
    "bug31": Bug(
        "max_pool_pays_everyone",
        2,
        10,
        "Move an element that has not won a little. What does y do?",
        "Draw y as a function of the second largest element.",
    ),
    "bug32": Bug(
        "local_response_norm_forgets_neighbours",
        3,
        20,
        "With the paper's α = 1e-4 the error is small enough to train. How small?",
        "x_j stands in s_i for its neighbours i, and in its own.",
    ),
    "bug33": Bug(
        "local_response_norm_keeps_exponent",
        2,
        10,
        "What is the derivative of s^-β with respect to s?",
        "Bringing the exponent down is half of the rule.",
    ),
    "bug34": Bug(
        "local_response_norm_looks_the_same_way",
        3,
        20,
        "For odd n it passes. For n = 4, channel 3 has in its neighbourhood the channels 1, "
        "2, 3, 4. In whose neighbourhoods is channel 3?",
        "One of the two is the transpose of the other.",
    ),
    "bug35": Bug(
        "dropout_redraws_mask",
        1,
        5,
        "What has the gradient to do with the loss that was computed?",
        "Two different masks are two different networks.",
    ),
    "bug36": Bug(
        "dropout_forgets_scale",
        1,
        5,
        "Which learning rate would hide it?",
        "Differentiate y = m x / (1 - rate).",
    ),
    "bug37": Bug(
        "dropout_forgets_mask",
        1,
        5,
        "Can a unit that was silenced change the loss?",
        "Differentiate y = m x / (1 - rate) where m = 0.",
    ),
    "bug38": Bug(
        "batch_norm_of_constants",
        2,
        10,
        "Add 1 to every x of a channel: what becomes of y? And what does this dx promise?",
        "Each x_i stands in the mean and in the variance, too.",
    ),
    "bug39": Bug(
        "batch_norm_forgets_variance",
        2,
        15,
        "The dx of a channel sum to 0, as they must. Now double every x - mean of a channel, and "
        "leave epsilon out: what becomes of y?",
        "Differentiate 1 / sqrt(var + epsilon) with respect to one x_i.",
    ),
    "bug40": Bug(
        "batch_norm_counts_padding",
        3,
        15,
        "For a batch without padding it passes. Which rows of dx are wrong in the others, and what "
        "do they change in the layer before?",
        "What is the derivative of the mean by an x whose weight is 0?",
    ),
}
