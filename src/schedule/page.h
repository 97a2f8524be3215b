#pragma once

#include <string>
#include <string_view>

#include "schedule/simulate.h"

namespace shardpipe::schedule {

/// The text with &, <, > and quotes escaped: fit for HTML's text and attributes.
std::string html_escape(std::string_view text);

/// A number for people: up to six digits, no trailing zeros.
std::string format_number(double value);

/// A whole page: `title` (plain text) as its heading, `body` (HTML) below. All style is in it; it loads nothing and
/// refuses to (Content-Security-Policy; inline style and script may be used in `body`). Light or dark as the reader's
/// system, for wide and narrow screens. Classes for `body`: "figures" (a list of key numbers: <dl class="figures">
/// <div><dt>name</dt><dd>value</dd></div>...</dl>), "scroll" (around what may be wider than the screen), "note", and
/// plain tables; a cell of class "number" is aligned right.
std::string html_page(std::string_view title, std::string_view body);

struct TimelineOptions {
  std::string unit;           ///< of time, after numbers: "ms"; may be empty
  size_t max_actions = 8000;  ///< of a longer schedule the beginning is shown, and a note says so
  size_t max_ranks = 64;      ///< likewise
};

/// The schedule as a picture (HTML with inline SVG, for html_page()): a row a rank, one colour for each of F, B, I, W
/// and reductions, microbatch numbers where they fit, paler where a rank's later stages work; below each row the
/// activations that it holds. Scrolls sideways in itself.
std::string timeline_html(const Simulation& simulation, const TimelineOptions& options = {});

/// A table, a row a rank: stages, busy and idle time, peak activations.
std::string rank_table_html(const Simulation& simulation, const std::string& unit = {});

}  // namespace shardpipe::schedule
