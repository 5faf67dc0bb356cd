/// A value that a test cannot go on without was `nil`.
public struct Absent: Error {
    /// Where it was looked for.
    public let line: Int
}

/// The value, or an error. `#require` cannot be used on calls that change a noncopyable queue.
public func present<Value>(_ value: Value?, line: Int = #line) throws -> Value {
    guard let value else { throw Absent(line: line) }
    return value
}
