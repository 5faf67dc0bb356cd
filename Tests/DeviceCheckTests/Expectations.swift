import DeviceCheck
import FunctionSupport
import Testing
import VirtioSpec

extension TamperedFunction {
    /// What the checks of these prefixes find, by id.
    func verdicts(_ prefixes: [String]) throws -> [String: CheckResult] {
        let results = try DeviceCheck.run(self, only: prefixes)
        return Dictionary(uniqueKeysWithValues: results.map { ($0.id, $0) })
    }
}

/// Bends one thing and names the rules that must then fail, whatever else does; `beside` are
/// checks that run too.
func expectFailures(
    _ ids: [String],
    beside: [String] = [],
    _ bend: (TamperedFunction<NetStub>) throws -> Void
) throws {
    let function = try TamperedFunction(NetStub())
    try bend(function)
    let found = try function.verdicts(ids + beside)
    for id in ids {
        #expect(found[id]?.verdict == .fail, "\(id): \(found[id]?.evidence ?? "not run")")
    }
}

/// Bends what one register reads.
func expectFailures(
    _ ids: [String],
    reading register: CommonConfiguration,
    _ bend: @escaping (UInt32) -> UInt32
) throws {
    try expectFailures(ids) { function in
        function.answer = { offset, _, value in
            offset == UInt64(register.offset) ? bend(value) : value
        }
    }
}
