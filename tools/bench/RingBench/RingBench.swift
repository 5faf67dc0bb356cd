internal import GuestMemory
internal import HostSystem
internal import Virtqueue

/// One measured case, both implementations side by side.
public struct RingResult: Codable, Sendable {
    /// What was done.
    public let operation: String
    /// Frame length; 0 for an idle poll.
    public let size: Int
    /// Packets a call.
    public let burst: Int
    /// TSC cycles a packet (a poll, when idle), best block of all rounds.
    public let cycles: Double
    /// The same for the C loop.
    public let baselineCycles: Double
    /// Ours ÷ C: the median over rounds of the ratio of the round's best blocks.
    public let ratio: Double

    enum CodingKeys: String, CodingKey {
        case operation, size, burst, cycles, ratio
        case baselineCycles = "baseline_cycles"
    }
}

/// All cases, and under what conditions they were measured.
public struct RingReport: Codable, Sendable {
    /// Name and version of this form.
    public let schema: String
    /// Bytes of a page of the rings' memory.
    public let pageSize: Int
    /// Rounds of each implementation.
    public let rounds: Int
    /// One entry a case.
    public let cases: [RingResult]

    enum CodingKeys: String, CodingKey {
        case schema, rounds, cases
        case pageSize = "page_size"
    }

    /// A table for people.
    public var text: String {
        var lines = [
            "cycles a packet, one core, \(pageSize >> 10) KiB pages, best of \(rounds) rounds",
            "operation   frame  burst      ours         C   ours/C",
        ]
        for one in cases {
            lines.append(
                Self.right(one.operation, 9) + Self.right("\(one.size)", 8)
                    + Self.right("\(one.burst)", 7) + Self.right(Self.fixed(one.cycles, 1), 10)
                    + Self.right(Self.fixed(one.baselineCycles, 1), 10)
                    + Self.right(Self.fixed(one.ratio, 2), 9)
            )
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        let scale = digits == 1 ? 10 : 100
        let scaled = Int((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale)." + String(repeating: "0", count: digits - fraction.count)
            + fraction
    }
}

/// The device side of our rings against the same loop in C, on one core: both sides of each ring in
/// one thread, so that no line travels and what is seen is the code alone.
public enum RingBench {
    /// Something was measured that did not do its work.
    public struct Failure: Error, CustomStringConvertible {
        /// What went wrong.
        public let description: String
    }

    /// All cases, in the order of the report.
    public static var cases: [(operation: RingOperation, size: Int, burst: Int)] {
        var all: [(operation: RingOperation, size: Int, burst: Int)] = []
        for operation in [RingOperation.walk, .dequeue, .enqueue, .forward] {
            for size in operation.copies ? [64, 1518] : [64] {
                for burst in [1, 32] { all.append((operation, size, burst)) }
            }
        }
        return all + [(.idle, 0, 1)]
    }

    /// Measures all cases.
    public static func report(rounds: Int) throws -> RingReport {
        let results = try cases.map { one in
            try measure(one.operation, size: one.size, burst: one.burst, rounds: rounds)
        }
        return RingReport(
            schema: "vhost-pci.bench-ring/1",
            pageSize: try BenchMemory(size: 64).pageSize,
            rounds: max(fewestRounds, rounds),
            cases: results
        )
    }

    /// Fewer rounds say nothing on a machine that others use as well.
    public static let fewestRounds = 9

    /// Measures one case: rounds of blocks, ours and C's in turn.
    ///
    /// The best block of a round is one that nobody disturbed, so neither the time of other
    /// processes nor an interrupt counts; a ratio is taken within a round, because the speed of the
    /// core changes from one to the next on a shared machine.
    public static func measure(
        _ operation: RingOperation,
        size: Int,
        burst: Int,
        rounds: Int
    ) throws -> RingResult {
        let memory = try BenchMemory(size: max(size, 64))
        var best: [Double] = [.infinity, .infinity]
        var ratios: [Double] = []
        for round in 0..<(max(fewestRounds, rounds) + 1) {
            var swift = try SwiftRings(memory)
            let ours = try bestBlock(operation, size, memory) {
                swift.block(operation, burst: burst)
            }
            guard swift.isGood else { throw Failure(description: "our ring broke") }
            var baseline = BaselineRings(memory)
            let theirs = try bestBlock(operation, size, memory) {
                baseline.block(operation, burst: burst)
            }
            guard baseline.isGood else { throw Failure(description: "the C ring broke") }
            // The first round warms up.
            guard round > 0 else { continue }
            best[0] = min(best[0], ours)
            best[1] = min(best[1], theirs)
            ratios.append(ours / theirs)
        }
        return RingResult(
            operation: operation.rawValue,
            size: size,
            burst: burst,
            cycles: best[0],
            baselineCycles: best[1],
            ratio: ratios.sorted()[ratios.count / 2]
        )
    }

    /// Runs ours alone for a profiler: divide the difference between two counts of `packets` by
    /// their difference. Returns the packets moved.
    public static func profile(
        _ operation: RingOperation,
        size: Int,
        burst: Int,
        packets: Int
    ) throws -> UInt64 {
        let memory = try BenchMemory(size: size)
        var rings = try SwiftRings(memory)
        for number in 0..<(packets / BenchShape.ringSize) {
            _ = rings.block(operation, burst: burst, isPrepared: number > 0)
        }
        guard rings.isGood else { throw Failure(description: "our ring broke") }
        return rings.moved
    }

    /// Blocks in one round.
    private static let blocks = 60

    private static func bestBlock(
        _ operation: RingOperation,
        _ size: Int,
        _ memory: BenchMemory,
        _ block: () -> UInt64
    ) throws -> Double {
        var best = UInt64.max
        for _ in 0..<blocks { best = min(best, block()) }
        if operation.copies {
            let isThere = memory.isIntact(
                size,
                inReceiveBuffers: operation != .dequeue,
                count: 1
            )
            guard isThere else { throw Failure(description: "\(operation): frames are damaged") }
            memory.spoil()
        }
        return Double(best) / Double(BenchShape.ringSize)
    }
}
