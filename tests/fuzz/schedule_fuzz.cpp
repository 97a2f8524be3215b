// schedule/action.h: a user's CSV, and what is done with it before any rank starts.
#include "schedule/lower.h"
#include "schedule/simulate.h"
#include "schedule/validate.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::MemoryLimit limit(size, 512, 64 << 10);
  fuzz::reads([&] {
    const schedule::Schedule parsed = schedule::parse_csv(fuzz::text_of(data, size), "input");
    const schedule::Schedule again = schedule::parse_csv(schedule::to_csv(parsed), "input");
    fuzz::require(again == parsed, "the CSV of a schedule is another schedule");
    const schedule::StageEdges edges = {{0, 1}, {1, 2}, {0, 2}};
    fuzz::reads([&] { schedule::validate(parsed, edges); });
    fuzz::reads([&] { schedule::validate(schedule::lower(parsed, edges), edges); });
    const schedule::StageEdges chain = schedule::chain_edges(parsed.num_stages);
    const schedule::Schedule lists = schedule::has_messages(parsed) ? schedule::add_local_messages(parsed, chain)
                                                                    : schedule::lower(parsed, chain, true);
    schedule::validate(lists, chain);
    // What is valid runs to its end.
    schedule::simulate(lists, chain, schedule::uniform_costs(parsed.num_stages, 1, 1, 1, 0.5));
  });
  return 0;
}
