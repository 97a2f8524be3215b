#include "text/decoder.h"

#include <vector>

#include "base/error.h"
#include "text/decode_steps.h"
#include "text/pattern_field.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// A step with nothing to configure.
template <typename Step>
class Simple : public Decoder {
 public:
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override { return std::make_unique<Step>(next); }
};

class Replace : public Decoder {
 public:
  explicit Replace(const Fields& fields) : pattern_(pattern_field(fields)), content_(fields.string("content")) {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<ReplaceStep>(next, pattern_, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip : public Decoder {
 public:
  explicit Strip(const Fields& fields)
      : content_(fields.string("content")), start_(fields.size("start")), stop_(fields.size("stop")) {
    if (content_.empty() || char_length(content_[0]) != content_.size()) {
      throw_input("{}.content must be one character, is {:?}", fields.where(), content_);
    }
  }
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<StripStep>(next, content_, start_, stop_);
  }

 private:
  std::string content_;
  size_t start_;
  size_t stop_;
};

class Sequence : public Decoder {
 public:
  explicit Sequence(const Fields& fields) {
    for (const Fields& part : fields.objects("decoders")) {
      parts_.push_back(make_decoder(part));
    }
  }
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    std::vector<std::unique_ptr<DecodeStep>> steps;
    DecodeStep* following = &next;
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
      steps.push_back((*part)->start(*following));
      following = steps.back().get();
    }
    return std::make_unique<ChainStep>(*following, std::move(steps));
  }

 private:
  std::vector<std::unique_ptr<const Decoder>> parts_;
};

}  // namespace

std::unique_ptr<const Decoder> make_decoder(const Fields& fields) {
  const std::string type = fields.type();
  if (type == "Sequence") {
    return std::make_unique<Sequence>(fields);
  }
  if (type == "ByteLevel") {
    return std::make_unique<Simple<ByteLevelStep>>();
  }
  if (type == "ByteFallback") {
    return std::make_unique<Simple<ByteFallbackStep>>();
  }
  if (type == "Fuse") {
    return std::make_unique<Simple<FuseStep>>();
  }
  if (type == "Replace") {
    return std::make_unique<Replace>(fields);
  }
  if (type == "Strip") {
    return std::make_unique<Strip>(fields);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

std::unique_ptr<const Decoder> make_space_decoder() {
  return std::make_unique<Simple<SpaceStep>>();
}

}  // namespace shardpipe::text
