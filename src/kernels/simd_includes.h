#pragma once

// What the .inc files use: included before a target pragma, so that these functions keep the base instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/kernel_table.h"
