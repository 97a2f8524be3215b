#include "text/pre_tokenizer.h"

#include <algorithm>

namespace shardpipe::text {
namespace {

// Joins a match to the segment before it (in the order given), unless that one is a match too.
std::vector<Segment> merge_matches(std::vector<Segment> segments, bool forward) {
  std::vector<Segment> out;
  bool previous = false;
  if (!forward) {
    std::reverse(segments.begin(), segments.end());
  }
  for (const Segment& segment : segments) {
    if (segment.match && !previous && !out.empty()) {
      (forward ? out.back().end : out.back().begin) = forward ? segment.end : segment.begin;
    } else {
      out.push_back(segment);
    }
    previous = segment.match;
  }
  if (!forward) {
    std::reverse(out.begin(), out.end());
  }
  return out;
}

std::vector<Segment> merge_runs(const std::vector<Segment>& segments) {
  std::vector<Segment> out;
  bool previous = false;
  for (const Segment& segment : segments) {
    if (segment.match == previous && !out.empty()) {
      out.back().end = segment.end;
    } else {
      out.push_back(segment);
    }
    previous = segment.match;
  }
  return out;
}

}  // namespace

void split_text(
    std::string_view text, const std::vector<Segment>& segments, SplitBehavior behavior, std::vector<Piece>& out) {
  const auto emit = [&](const std::vector<Segment>& parts) {
    for (const Segment& part : parts) {
      if (part.end > part.begin && !(behavior == SplitBehavior::removed && part.match)) {
        out.push_back({std::string(text.substr(part.begin, part.end - part.begin)), Piece::kText, part.begin == 0});
      }
    }
  };
  switch (behavior) {
    case SplitBehavior::removed:
    case SplitBehavior::isolated:
      return emit(segments);
    case SplitBehavior::merged_with_previous:
      return emit(merge_matches(segments, true));
    case SplitBehavior::merged_with_next:
      return emit(merge_matches(segments, false));
    case SplitBehavior::contiguous:
      return emit(merge_runs(segments));
  }
}

}  // namespace shardpipe::text
