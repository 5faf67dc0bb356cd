import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VfioUser

/// The same driver twice: on a function in this process, and on the same function behind a socket.
/// Whatever it does has to come out the same.
final class Lockstep {
    /// In process, then served.
    let functions: [any PCIFunction]
    private var arenas: [[DMAArena]] = []
    private var events: [Int: [EventFD]] = [:]
    private var random: SplitMix64
    /// Accesses so far.
    private(set) var steps = 0
    private var log: [String] = []

    init(_ path: String, seed: UInt64) throws {
        let local = InProcessFunction(endpoint: try VirtioPCIFunction(device: ReverseDevice()))
        try local.reset()
        functions = [local, try Client(path: path)]
        random = SplitMix64(seed)
    }

    /// Does one thing, and says when it came out differently.
    func step() throws {
        steps += 1
        switch random.next() % 1000 {
        case 0..<300: accessConfiguration()
        case 300..<900: accessRegister()
        case 900..<950: try wire()
        case 950..<975: try changeMemory()
        case 975..<980: same("reset") { try $0.reset() }
        case 980..<983: try drive()
        default: switchOn()
        }
        if steps % 25 == 0 { compareInterrupts() }
        if steps % 200 == 0 { compareMemory() }
    }

    /// Runs `work` on both; results and errors must be the same.
    private func same<Value: Equatable>(
        _ what: @autoclosure () -> String,
        _ work: (any PCIFunction) throws -> Value
    ) {
        let results = functions.map { function in Result { try work(function) } }
        switch (results[0], results[1]) {
        case (.success(let first), .success(let second)):
            if first != second { Issue.record("step \(steps), \(what()): \(first), \(second)") }
        case (.failure(let first), .failure(let second)):
            if "\(first)" != "\(second)" {
                Issue.record("step \(steps), \(what()): \(first), \(second)")
            }
        default: Issue.record("step \(steps), \(what()): \(results)")
        }
    }

    private func same(_ what: @autoclosure () -> String, _ work: (any PCIFunction) throws -> Void) {
        same(what()) { (function) -> Int in
            try work(function)
            return 0
        }
    }

    private var width: AccessWidth { AccessWidth.allCases[Int(random.next() % 3)] }
    private var value: UInt32 {
        random.next() % 2 == 0
            ? UInt32(random.next() % 20) : UInt32(truncatingIfNeeded: random.next())
    }

    private func accessConfiguration() {
        let (offset, width, value) = (Int(random.next() % 300), width, value)
        if random.next() % 3 == 0 {
            same("write \(value) to \(offset)") {
                try $0.writeConfiguration(offset, width, value)
            }
        }
        same("configuration \(offset), \(width)") { try $0.readConfiguration(offset, width) }
    }

    private func accessRegister() {
        let bars = [0, 0, 0, 2, 2, 1, 4, 5]
        let bar = bars[Int(random.next() % 8)]
        let near: [UInt64] = [0, 16, 20, 22, 0x1000, 0x2000, 0x3000, 0x4000, 0x6000, 0x7000]
        let isAnywhere = random.next() % 5 == 0
        let base = isAnywhere ? random.next() % (1 << 17) : near[Int(random.next() % 10)]
        let (offset, width, value) = (base + random.next() % 48, width, value)
        if random.next() % 2 == 0 {
            same("write \(value) to \(offset) of BAR \(bar), \(width)") {
                try $0.writeRegister(bar, offset, width, value)
            }
        }
        same("register \(offset) of BAR \(bar), \(width)") {
            try $0.readRegister(bar, offset, width)
        }
    }

    private func switchOn() {
        same("command") { try $0.writeConfiguration(ConfigurationHeader.command, .word, 6) }
        same("status") { try $0.readConfiguration(0, .long) }
        same("BAR 2") { try $0.barSize(2) }
        same("vectors") { try $0.interruptVectorCount }
    }

    private func wire() throws {
        let vector = Int(random.next() % 6) - 1
        guard random.next() % 3 > 0 else {
            same("vector \(vector) off") { try $0.connectInterrupt(vector, to: nil) }
            events[vector] = nil
            return
        }
        let new = [try EventFD(), try EventFD()]
        same("vector \(vector)") { function in
            try function.connectInterrupt(vector, to: new[function is Client ? 1 : 0])
        }
        if vector >= 0 { events[vector] = new }
    }

    private func compareInterrupts() {
        for (vector, pair) in events {
            let counts = pair.map { $0.drain() }
            if counts[0] != counts[1] {
                Issue.record("step \(steps), vector \(vector): signalled \(counts) times")
            }
        }
    }

    private func changeMemory() throws {
        if arenas.count < 4 {
            let size = 4096 * (1 + Int(random.next() % 16))
            let pair = try functions.map { try $0.makeArena(size: size) }
            #expect(pair[0].deviceAddress == pair[1].deviceAddress)
            arenas.append(pair)
        } else {
            let pair = arenas.remove(at: Int(random.next() % 4))
            for (function, arena) in zip(functions, pair) { try function.releaseArena(arena) }
        }
    }

    private func compareMemory() {
        for pair in arenas {
            let bytes = pair.map { arena in
                // Safety: the mapping is as long as it says, and nobody writes it meanwhile.
                unsafe [UInt8](
                    UnsafeRawBufferPointer(
                        start: arena.mapping.address,
                        count: arena.mapping.length
                    )
                )
            }
            if bytes[0] != bytes[1] { Issue.record("step \(steps): memory differs") }
        }
    }

    /// The whole way of a driver, whatever state the device is in.
    private func drive() throws {
        let index = Int(random.next() % 2)
        let commands = (0..<(1 + random.next() % 20)).map { _ in
            (0..<(1 + random.next() % 200)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }
        same("drive queue \(index)") { function in try Self.drive(function, index, commands) }
        switchOn()
    }

    private static func drive(
        _ function: any PCIFunction,
        _ index: Int,
        _ commands: [[UInt8]]
    ) throws -> [[UInt8]] {
        let transport = try PCITransport(function: function)
        let arena = try transport.makeArena(size: 1 << 16)
        defer { try? transport.releaseArena(arena) }
        var queue: DriverBufferQueue?
        let wanted: FeatureBits = [.indirectDescriptors, .eventIndex, .accessPlatform]
        _ = try DriverHandshake.run(transport, wanted: wanted) {
            (features) throws(VirtioError) in
            queue = try DriverBufferQueue(
                transport: transport,
                queue: index,
                size: 16,
                bufferSize: 512,
                arena: arena,
                features: QueueFeatures(features),
                vector: nil
            )
        }
        var answers: [[UInt8]] = []
        for command in commands {
            _ = try queue?.submit(readable: command, writableCount: command.count)
            try queue?.notify()
            let deadline = Deadline(milliseconds: 5000)
            while !deadline.hasPassed {
                if let answer = try queue?.poll() {
                    answers.append(answer.written)
                    break
                }
            }
        }
        try transport.reset()
        // What came out is what went in, the other way round.
        #expect(answers == commands.map { $0.reversed() })
        return answers
    }
}

/// A generator with a seed, so that a failure can be repeated.
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
