#pragma once

// Marks what libshardpipe.so exports; everything else is hidden.
#define SHARDPIPE_API __attribute__((visibility("default")))
