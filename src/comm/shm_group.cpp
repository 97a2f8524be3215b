#include "comm/shm_group.h"

#include <sched.h>

#include <new>
#include <stdexcept>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "comm/await_keys.h"

namespace shardpipe::comm {

ShmSegment ShmGroup::make_segment(int num_ranks) {
  ShmSegment segment = ShmSegment::create(ShmLayout(num_ranks).bytes());
  auto* header = new (segment.data()) ShmHeader;
  header->num_ranks = static_cast<uint32_t>(num_ranks);
  header->magic = ShmHeader::kMagic;
  return segment;
}

ShmGroup::ShmGroup(ShmSegment segment, Seat seat)
    : segment_(std::move(segment)), layout_(static_cast<int>(seat.ranks.size())), seat_(std::move(seat)) {
  const auto& header = at<ShmHeader>(0);
  if (header.magic != ShmHeader::kMagic || header.num_ranks != seat_.ranks.size() ||
      segment_.bytes() != layout_.bytes()) {
    throw std::runtime_error("the shared memory is not that of this group");
  }
  member(rank()).process = this_process();
}

namespace {

/// What ranks of a group put under these keys. Throws Error(rank) naming the ranks whose keys do not come.
std::vector<std::string> values_of(
    Store& store,
    const ShmGroup::Seat& seat,
    const std::string& group,
    const std::vector<std::pair<int, std::string>>& keys,
    std::chrono::milliseconds timeout) {
  std::vector<std::string> names;
  for (const auto& [rank, key] : keys) {
    names.push_back(key);
  }
  if (!await_keys(store, *seat.monitor, names, timeout)) {
    std::string missing;
    for (const auto& [rank, key] : keys) {
      if (!store.has({key})) {
        missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rank);
      }
    }
    throw_rank(
        "rank {}: the ranks of group {} could not connect within {} s: ranks {} did not come",
        seat.ranks[static_cast<size_t>(seat.rank)], group, static_cast<double>(timeout.count()) / 1000, missing);
  }
  return store.get(names);
}

std::string to_text(const SegmentName& name) {
  return Json{{"pid", name.pid},     {"fd", name.fd},       {"device", name.device},
              {"inode", name.inode}, {"bytes", name.bytes}, {"error", ""}}
      .dump();
}

SegmentName segment_name(const std::string& text) {
  const Json json = parse_json(text, "segment's entry in the store");
  if (const std::string error = json.at("error"); !error.empty()) {
    throw std::runtime_error(error);
  }
  return {json.at("pid"), json.at("fd"), json.at("device"), json.at("inode"), json.at("bytes")};
}

}  // namespace

std::shared_ptr<ShmGroup> ShmGroup::connect(
    Store& store, const std::string& key, Seat seat, std::chrono::milliseconds timeout, std::string& why) {
  const int first = seat.ranks[0];
  const int own = seat.ranks[static_cast<size_t>(seat.rank)];
  const std::string segment_key = key + "/segment";
  std::shared_ptr<ShmGroup> group;
  std::string problem;
  ShmSegment made;  // stays open until all have attached
  try {
    if (seat.rank == 0) {
      made = make_segment(static_cast<int>(seat.ranks.size()));
      group = std::make_shared<ShmGroup>(ShmSegment::attach(made.name()), seat);
      store.set(segment_key, to_text(made.name()));
    } else {
      const std::string text = values_of(store, seat, key, {{first, segment_key}}, timeout).front();
      group = std::make_shared<ShmGroup>(ShmSegment::attach(segment_name(text)), seat);
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    problem = fmt::format("rank {}: {}", own, one_line(error.what()));
    if (seat.rank == 0) {
      store.set(segment_key, Json{{"error", problem}}.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
  }
  // Either all of them use it or none.
  std::vector<std::pair<int, std::string>> keys;
  for (const int member : seat.ranks) {
    keys.emplace_back(member, fmt::format("{}/attached/{}", key, member));
  }
  store.set(keys[static_cast<size_t>(seat.rank)].second, problem);
  for (const std::string& verdict : values_of(store, seat, key, keys, timeout)) {
    if (!verdict.empty()) {
      why = verdict;
      log_info("group {}: no shared memory: {}", key, verdict);
      return nullptr;
    }
  }
  return group;
}

bool ShmGroup::is_dead(int r) const {
  return !is_alive(member(r).process);
}

void ShmGroup::begin_wait(const char* what, int awaited) const {
  seat_.monitor->check();
  seat_.monitor->begin_wait(what, awaited < 0 ? -1 : world_rank(awaited));
}

void ShmGroup::end_wait() const {
  seat_.monitor->end_wait();
}

void ShmGroup::lost(int r, const char* what) const {
  seat_.monitor->lost_connection(world_rank(r), fmt::format("{}: its process ended", what));
}

uint32_t ShmGroup::note_core() const {
  const auto core = static_cast<uint32_t>(::sched_getcpu() + 1);
  std::atomic<uint32_t>& noted = member(rank()).core;
  if (noted.load(std::memory_order_relaxed) != core) {
    noted.store(core, std::memory_order_relaxed);
  }
  return core;
}

void ShmGroup::leave_core() const {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return;
  }
  cpu_set_t others = allowed;
  for (int r = 0; r < size(); ++r) {
    const uint32_t core = member(r).core.load(std::memory_order_relaxed);
    if (core > 0) {
      CPU_CLR(core - 1, &others);
    }
  }
  // What has to move moves at once; after that it may be anywhere again.
  if (::sched_setaffinity(0, sizeof(others), &others) == 0) {
    ::sched_setaffinity(0, sizeof(allowed), &allowed);
    note_core();
  }
}

}  // namespace shardpipe::comm
