// SPDX-License-Identifier: Apache-2.0
// A bounded table whose entries last for a while since they were last used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <utility>

namespace msb::virtio {

template <typename Key, typename Value>
class Recent {
 public:
  // `most` entries, of which the one that was used longest ago gives way; times in nanoseconds.
  Recent(std::size_t most, std::uint64_t lifetime) : most_(most), lifetime_(lifetime) {}

  // The entry, which is used now, or null. Valid until the next call.
  Value* find(const Key& key, std::uint64_t now) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) {
      return nullptr;
    }
    if (now - found->second->used > lifetime_) {
      order_.erase(found->second);
      entries_.erase(found);
      return nullptr;
    }
    found->second->used = now;
    order_.splice(order_.end(), order_, found->second);
    return &found->second->value;
  }

  // The same without being used.
  const Value* look(const Key& key, std::uint64_t now) const {
    const auto found = entries_.find(key);
    const bool there = found != entries_.end() && now - found->second->used <= lifetime_;
    return there ? &found->second->value : nullptr;
  }

  void remove(const Key& key) {
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      order_.erase(found->second);
      entries_.erase(found);
    }
  }

  // Makes or replaces it.
  void put(const Key& key, Value value, std::uint64_t now) {
    if (Value* const there = find(key, now)) {
      *there = std::move(value);
      return;
    }
    if (entries_.size() == most_) {
      entries_.erase(order_.front().key);
      order_.pop_front();
    }
    order_.push_back({key, std::move(value), now});
    entries_.emplace(key, std::prev(order_.end()));
  }

  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Key key;
    Value value;
    std::uint64_t used;
  };
  const std::size_t most_;
  const std::uint64_t lifetime_;
  std::list<Entry> order_;  // the one used longest ago first
  std::map<Key, typename std::list<Entry>::iterator> entries_;
};

}  // namespace msb::virtio
