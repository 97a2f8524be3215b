#include "text/decoder.h"

#include <vector>

#include "base/error.h"
#include "text/decode_steps.h"
#include "text/decode_word_steps.h"
#include "text/metaspace.h"
#include "text/pattern_field.h"

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
      : content_(char_field(fields, "content")), start_(fields.size("start")), stop_(fields.size("stop")) {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<StripStep>(next, content_, start_, stop_);
  }

 private:
  std::string content_;
  size_t start_;
  size_t stop_;
};

class WordPiece : public Decoder {
 public:
  explicit WordPiece(const Fields& fields) : prefix_(fields.string("prefix")), cleanup_(fields.boolean("cleanup")) {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<WordPieceStep>(next, prefix_, cleanup_);
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class Spaces : public Decoder {
 public:
  explicit Spaces(const Fields& fields) : metaspace_(make_metaspace(fields)) {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<MetaspaceStep>(next, metaspace_);
  }

 private:
  Metaspace metaspace_;
};

class WordSuffix : public Decoder {
 public:
  explicit WordSuffix(const Fields& fields) : suffix_(fields.string("suffix")) {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<WordSuffixStep>(next, suffix_);
  }

 private:
  std::string suffix_;
};

class Ctc : public Decoder {
 public:
  explicit Ctc(const Fields& fields)
      : options_{fields.string("pad_token"), fields.string("word_delimiter_token"), fields.boolean("cleanup")} {}
  std::unique_ptr<DecodeStep> start(DecodeStep& next) const override {
    return std::make_unique<CtcStep>(next, options_);
  }

 private:
  CtcStep::Options options_;
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
  if (type == "WordPiece") {
    return std::make_unique<WordPiece>(fields);
  }
  if (type == "Metaspace") {
    return std::make_unique<Spaces>(fields);
  }
  if (type == "BPEDecoder") {
    return std::make_unique<WordSuffix>(fields);
  }
  if (type == "CTC") {
    return std::make_unique<Ctc>(fields);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

std::unique_ptr<const Decoder> make_space_decoder() {
  return std::make_unique<Simple<SpaceStep>>();
}

}  // namespace shardpipe::text
