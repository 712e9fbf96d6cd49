"""Who answers requests: models behind `language_model.LanguageModel`, and the wrappers cache and progress."""
