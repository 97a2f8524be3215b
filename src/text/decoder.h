#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "text/fields.h"

namespace shardpipe::text {

/// One step of decoding at work: receives tokens in parts and passes tokens on. Text is passed on as soon as nothing
/// that follows can change it, which is what lets a stream print words while they are made.
class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  /// A part of the current token.
  virtual void text(std::string_view part) = 0;
  /// The current token is complete.
  virtual void end_token() = 0;
  /// No token follows.
  virtual void finish() = 0;
};

/// A step's description; start() makes one at work that passes its tokens to `next` (which must outlive it).
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::unique_ptr<DecodeStep> start(DecodeStep& next) const = 0;
};

/// The decoder that a "decoder" object describes. Throws Error(usage) for a type that is not supported, Error(input)
/// for bad fields.
std::unique_ptr<const Decoder> make_decoder(const Fields& fields);

/// Without a decoder the tokens are joined by spaces.
std::unique_ptr<const Decoder> make_space_decoder();

}  // namespace shardpipe::text
