// The kernels of a program of products, by rows of x that a work-item deals with.

LINEAR(linear_1, 1)
LINEAR(linear_2, 2)
LINEAR(linear_4, 4)
